"""Clients of decoupled models: those that read, and those that do not."""

import asyncio
import random

import grpc
from tests.support.chaos.gone import CANCELLED, DEADLINE, a_while
from tests.support.chaos.world import END, World
from tests.support.decoupled_requests import HOUR_MS, is_final, numbers, repeat, square
from tritonclient.grpc import service_pb2 as wire

UNREADABLE = 1_000_000
"""Responses that nobody reads, and no server keeps."""

LONGEST = 60
"""Responses to a request that are read: the client's loop, which all share, has 30 ms for each."""


async def read_all(world: World, rng: random.Random) -> None:
    """Several requests on one stream: each request's responses, all of them and in order."""
    plan = {str(n): [rng.randint(-9, 9) for _ in range(rng.randint(0, LONGEST))] for n in range(5)}
    requests = [
        repeat(values, [rng.choice([0, 0, 0, 1]) for _ in values], id=id_, empty_final=True)
        for id_, values in plan.items()
    ]
    found: dict[str, list[tuple[int, ...]]] = {id_: [] for id_ in plan}
    finals = []
    async for data in world.client(rng).stream(requests):
        reply = wire.ModelStreamInferResponse.FromString(data)
        assert not reply.error_message, reply.error_message
        if is_final(reply):
            finals.append(reply.infer_response.id)
        else:
            found[reply.infer_response.id].append(numbers(reply))
    for id_, values in plan.items():
        assert found[id_] == [(value, index) for index, value in enumerate(values)]
    assert sorted(finals) == sorted(plan)
    world.tally["decoupled: read"] += 1


async def read_little(world: World, rng: random.Random) -> None:
    """A stream with more responses than anybody reads; left, or overtaken by its deadline."""
    timeout = rng.choice([None, 0.05])
    stream = world.client(rng).stream(timeout=timeout)
    requests = [square(UNREADABLE), repeat([1, 2], [0, HOUR_MS]), square(3)]
    try:
        sent = rng.choices(requests, k=rng.randint(1, 4))
        for request in sent:
            await stream.write(request)
        for _ in range(rng.randint(0, len(sent))):  # each has one at once, at least
            if await stream.read() is END:
                break
    except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        assert timeout is not None  # it has passed meanwhile
    await a_while(rng, stream)
    stream.cancel()
    code = await stream.code()
    text = await stream.details()
    # grpc.aio loses the status of a stream whose deadline passes while it sends.
    is_late = code is DEADLINE or text == "Internal error from Core"
    assert code is CANCELLED or (is_late and timeout is not None), f"{code} {text!r}"
    world.count("decoupled: left", code)
