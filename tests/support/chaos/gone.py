"""Callers that are late, that change their minds, or that hang up."""

import asyncio
import random
from typing import Any

import grpc
from tests.support import raw_http2 as http2
from tests.support.chaos import right
from tests.support.chaos.world import END, OK, World, outcome
from tests.support.chaos.wrong import failing_model, garbage, wrong_tensor, wrong_version
from tests.support.requests import identity_request
from tritonclient.grpc import service_pb2 as wire

CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def slow_request(rng: random.Random, **parameters: int) -> bytes:
    """A request to the model that takes its time."""
    named = {key: wire.InferParameter(int64_param=value) for key, value in parameters.items()}
    request = identity_request([rng.random()], model="slow", parameters=named)
    payload: bytes = request.SerializeToString()
    return payload


async def a_while(rng: random.Random, *calls: Any) -> None:
    """Until the calls are done, or some milliseconds have passed."""
    tasks = {asyncio.ensure_future(call.code()) for call in calls}
    await asyncio.wait(tasks, timeout=rng.uniform(0, 0.03))
    for task in tasks:
        task.cancel()


async def ask_late(world: World, rng: random.Random) -> None:
    """Deadlines that pass before the arrival, in the queue and in the batch."""
    timeout = rng.choice([0.0, 0.0005, 0.002, 0.01, 0.03])
    call = world.client(rng).unary("ModelInfer", slow_request(rng), timeout=timeout)
    code, text = await outcome(call)
    assert code in {OK, DEADLINE, UNAVAILABLE}, f"late: {code} {text!r}"
    world.count("late", code)


async def ask_impatient(world: World, rng: random.Random) -> None:
    """A timeout of the request's own, in microseconds."""
    payload = slow_request(rng, timeout=rng.choice([1, 500, 5000, 50_000]))
    code, text = await outcome(world.client(rng).unary("ModelInfer", payload))
    assert code in {OK, UNAVAILABLE}, f"impatient: {code} {text!r}"
    if code is UNAVAILABLE:
        assert "Request timeout expired" in text or "Exceeds maximum queue size" in text, text
    world.count("impatient", code)


async def flood(world: World, rng: random.Random) -> None:
    """More at once than the queue holds; some leave while they wait, some while they run."""
    client = world.client(rng)
    calls = [client.unary("ModelInfer", slow_request(rng)) for _ in range(rng.randint(5, 60))]
    await a_while(rng, *calls)
    leaving = [call for call in calls if rng.random() < 0.5]
    for call in leaving:
        call.cancel()
    for call in calls:
        code = await call.code()
        assert code in {OK, UNAVAILABLE, *([CANCELLED] if call in leaving else [])}, code
        world.count("flood", code)


async def hang_up_channel(world: World, rng: random.Random) -> None:
    """A whole connection is closed over requests and a stream in flight."""
    async with world.passing_client() as client:
        calls = [client.unary("ModelInfer", slow_request(rng)) for _ in range(rng.randint(1, 8))]
        stream = client.stream()
        await stream.write(slow_request(rng))
        if world.tally["hang up: CANCELLED"]:  # else at once: a busy machine may let few hang up
            await a_while(rng, *calls)
    for call in calls:
        world.count("hang up", await call.code())


async def stream_mixed(world: World, rng: random.Random) -> None:
    """Right and wrong requests on one stream: every reply in its place."""
    plan: list[right.Right | None] = []
    payloads = []
    for _ in range(rng.randint(1, 60)):
        if rng.random() < 0.7:
            made = rng.choice([*right.KINDS.values()])(world, rng)
            plan.append(made)
            payloads.append(made.payload)
        else:
            request, _ = rng.choice([wrong_tensor, wrong_version, garbage, failing_model])(rng)
            plan.append(None)
            payloads.append(request if isinstance(request, bytes) else request.SerializeToString())
    replies = [
        wire.ModelStreamInferResponse.FromString(reply)
        async for reply in world.client(rng).stream(payloads)
    ]
    assert len(replies) == len(plan)
    for expected, reply in zip(plan, replies, strict=True):
        assert bool(reply.error_message) == (expected is None), reply.error_message
        if expected is not None:
            expected.check(reply.infer_response)
        world.tally["stream: right" if expected else "stream: wrong"] += 1


async def stream_left(world: World, rng: random.Random) -> None:
    """A stream that is cancelled: at once, while replies come, or never read at all."""
    stream = world.client(rng).stream()
    reads = rng.choice([0, 0, 1, 3])
    for _ in range(reads + rng.randint(0, 30)):
        made = rng.choice([right.simple, right.identity])(world, rng)
        await stream.write(made.payload if rng.random() < 0.5 else slow_request(rng))
    for _ in range(reads):
        assert await stream.read() is not END
    await a_while(rng, stream)
    stream.cancel()
    assert await stream.code() is CANCELLED
    world.count("stream left", CANCELLED)


async def stream_first_failure_ends(world: World, rng: random.Random) -> None:
    """The first failure ends the stream, over all that was sent behind it."""
    bad = identity_request([1.0], model="fails").SerializeToString()
    behind = [slow_request(rng) for _ in range(rng.randint(0, 10))]
    call = world.client(rng).stream([bad, *behind], metadata=(("triton_grpc_error", "true"),))
    assert await call.code() is grpc.StatusCode.INTERNAL
    world.tally["stream: ended by failure"] += 1


async def frames(world: World, rng: random.Random) -> None:
    """HTTP/2 by hand: requests that stop in the middle, lie about lengths, or are never read."""
    payload = http2.message(rng.choice([slow_request(rng), right.simple(world, rng).payload]))
    whole = http2.headers(1, rng.choice([http2.INFER, http2.STREAM_INFER])) + http2.data(1, payload)
    lying = http2.headers(1) + http2.data(
        1, http2.message(b"abc", claim=rng.choice([2, 99, 2**31]))
    )
    open_end = http2.headers(1, http2.STREAM_INFER) + http2.data(1, payload, end=False)
    reset = whole + http2.frame(http2.RST_STREAM, 0, 1, rng.randbytes(4))
    several = b"".join(http2.headers(n) + http2.data(n, payload) for n in (1, 3, 5))
    sent = rng.choice([whole, lying, open_end, reset, several, several + rng.randbytes(50)])
    if rng.random() < 0.4:
        sent = sent[: rng.randrange(1, len(sent))]
    async with http2.connection(world.port("gRPC")) as peer:
        await peer.send(http2.PREFACE, http2.frame(http2.SETTINGS, 0, 0), sent)
        if rng.random() < 0.5:
            await peer.receive()
        if rng.random() < 0.7:
            peer.reset()
    world.tally["frames"] += 1
