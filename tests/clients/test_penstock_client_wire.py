"""penstock_client over a real socket against a scripted server: both clients, same bodies."""

import asyncio
import inspect
import socket
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.fake_v2_server import FakeServer, echo, echo_stream

from penstock_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InferRequest,
    InferResult,
    InvalidArgumentError,
    ProtocolError,
    RpcError,
    StreamResponseError,
    TensorError,
    UnavailableError,
    UnimplementedError,
)
from penstock_client.errors import error_class

pytestmark = pytest.mark.any_transport

X = np.arange(6, dtype=np.float32).reshape(2, 3)
KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])


class Waits:
    """Notes what a client would have slept, and sleeps not at all."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def sleep_for(self, kind: type) -> Any:
        if kind is Client:
            return self.seconds.append

        async def note(seconds: float) -> None:
            self.seconds.append(seconds)

        return note


@asynccontextmanager
async def opened(kind: Any, url: str, **settings: Any) -> Any:
    """Either client; awaiting a method of `ask` works for both."""
    client = kind(url, **settings)
    try:
        yield client
    finally:
        await settle(client.close())


async def settle(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def collect(stream: Any, into: list[Any]) -> None:
    if inspect.isasyncgen(stream):
        async for item in stream:
            into.append(item)
    else:
        for item in stream:
            into.append(item)


class Failing:
    """Aborts with the given status and trailing metadata so many times, then echoes."""

    def __init__(self, times: int, code: grpc.StatusCode, **trailing: str) -> None:
        self.left = times
        self.code = code
        self.trailing = tuple((key.replace("_", "-"), value) for key, value in trailing.items())
        self.received = 0

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.received += 1
        if self.left:
            self.left -= 1
            context.set_trailing_metadata(self.trailing)
            context.abort(self.code, "scripted")
        return echo(request, context)


@KINDS
async def test_infer_round_trips_every_input(kind: Any) -> None:
    inputs = {"x": X, "s": np.array(["\u00fc", b"\0"], object), "e": np.empty((0, 4), np.int8)}
    with FakeServer() as server:
        async with opened(kind, server.url) as client:
            result = await settle(client.infer("m", inputs, request_id="r"))
    assert list(result) == ["x", "s", "e"]
    np.testing.assert_array_equal(result["x"], X)
    assert result["s"].tolist() == [b"\xc3\xbc", b"\0"]
    assert result["e"].shape == (0, 4)
    assert result.id == "r"


@KINDS
async def test_message_over_the_usual_limit_of_grpc_passes(kind: Any) -> None:
    big = np.zeros((1, 6 * 2**20), np.uint8)
    with FakeServer() as server:
        async with opened(kind, server.url) as client:
            result = await settle(client.infer("m", {"x": big}))
    assert result["x"].shape == big.shape


@KINDS
@pytest.mark.parametrize(
    "code",
    [c for c in grpc.StatusCode if c not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)],
)
async def test_every_status_becomes_its_error_without_a_retry(
    kind: Any, code: grpc.StatusCode
) -> None:
    failing = Failing(1, code, why="test")
    with FakeServer(failing) as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(RpcError, match=f"^{code.name}: scripted .*model 'm'") as caught:
                await settle(client.infer("m", {"x": X}))
    assert type(caught.value) is error_class(code)
    assert caught.value.details["why"] == "test"
    assert failing.received == 1


@KINDS
async def test_unavailable_is_sent_again(kind: Any) -> None:
    waits, failing = Waits(), Failing(2, grpc.StatusCode.UNAVAILABLE)
    with FakeServer(failing) as server:
        async with opened(kind, server.url, sleep=waits.sleep_for(kind)) as client:
            result = await settle(client.infer("m", {"x": X}))
    np.testing.assert_array_equal(result["x"], X)
    assert failing.received == 3
    assert len(waits.seconds) == 2
    assert 0 <= waits.seconds[0] <= 0.1
    assert 0 <= waits.seconds[1] <= 0.2


@KINDS
async def test_pushback_is_heeded(kind: Any) -> None:
    waits = Waits()
    failing = Failing(1, grpc.StatusCode.UNAVAILABLE, grpc_retry_pushback_ms="1234")
    with FakeServer(failing) as server:
        async with opened(kind, server.url, sleep=waits.sleep_for(kind)) as client:
            await settle(client.infer("m", {"x": X}))
    assert waits.seconds == [1.234]


@KINDS
async def test_negative_pushback_ends_it(kind: Any) -> None:
    failing = Failing(1, grpc.StatusCode.UNAVAILABLE, grpc_retry_pushback_ms="-1")
    with FakeServer(failing) as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(UnavailableError, match="scripted"):
                await settle(client.infer("m", {"x": X}))
    assert failing.received == 1


@KINDS
async def test_deadline_ends_a_call_that_hangs(kind: Any) -> None:
    released = threading.Event()

    def hang(request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(released.set)  # the client's deadline cancels the call here too
        released.wait()
        return echo(request, context)

    with FakeServer(hang) as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(DeadlineExceededError):
                await settle(client.infer("m", {"x": X}, deadline_s=0.05))


async def test_cancelled_task_cancels_the_call_on_the_server() -> None:
    started, cancelled = threading.Event(), threading.Event()

    def hang(request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(cancelled.set)
        started.set()
        cancelled.wait()
        return echo(request, context)

    with FakeServer(hang) as server:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.infer("m", {"x": X}))
            await asyncio.to_thread(started.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(cancelled.wait)


@KINDS
async def test_nobody_listening_is_unavailable_after_all_attempts(kind: Any) -> None:
    waits = Waits()
    with socket.socket() as taken:  # bound but not listening: nobody else gets the port either
        taken.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        async with opened(kind, url, sleep=waits.sleep_for(kind)) as client:
            with pytest.raises(UnavailableError, match="4 attempts"):
                await settle(client.infer("m", {"x": X}))
    assert len(waits.seconds) == 3


@KINDS
async def test_method_the_server_lacks_is_unimplemented(kind: Any) -> None:
    with FakeServer() as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(UnimplementedError):
                await settle(client.server_live())


@KINDS
async def test_answer_that_is_no_message_is_a_protocol_error(kind: Any) -> None:
    with FakeServer(lambda request, context: b"\xff\xff\xff") as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(ProtocolError, match="ModelInfer"):
                await settle(client.infer("m", {"x": X}))


@KINDS
async def test_headers_reach_the_server(kind: Any) -> None:
    seen: list[Any] = []

    def look(request: Any, context: grpc.ServicerContext) -> Any:
        seen.extend(context.invocation_metadata())
        return echo(request, context)

    with FakeServer(look) as server:
        async with opened(kind, server.url, headers={"X-Key": "k", "x-bin": b"\0"}) as client:
            await settle(client.infer("m", {"x": X}))
    assert ("x-key", "k") in seen
    assert ("x-bin", b"\0") in seen


def requests_of(*numbers: int | None) -> Iterator[InferRequest]:
    """A request per number; None is one without inputs, which the server refuses."""
    for number in numbers:
        inputs = {} if number is None else {"x": np.array([number], np.int32)}
        yield InferRequest("m", inputs, request_id=str(number))


def values(items: list[Any]) -> list[Any]:
    return [int(i["x"][0]) if isinstance(i, InferResult) else type(i) for i in items]


@KINDS
async def test_stream_answers_in_order_and_outlives_a_failure(kind: Any) -> None:
    items: list[Any] = []
    with FakeServer() as server:
        async with opened(kind, server.url) as client:
            await collect(client.stream(requests_of(1, None, 3)), items)
    assert values(items) == [1, StreamResponseError, 3]
    assert items[1].message == "expected 1 inputs but got 0"


@KINDS
async def test_stream_that_raises_gets_the_real_status(kind: Any) -> None:
    items: list[Any] = []
    with FakeServer() as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(InvalidArgumentError, match="expected 1 inputs but got 0"):
                # Nothing after it: a message that grpc.aio sends on a stream that has just been
                # ended makes its status INTERNAL, whatever it was.
                await collect(client.stream(requests_of(1, None), raise_errors=True), items)
    assert values(items) == [1]


@KINDS
async def test_stream_request_that_cannot_be_sent_raises_after_earlier_answers(kind: Any) -> None:
    items: list[Any] = []

    def requests() -> Iterator[InferRequest]:
        yield from requests_of(1, 2)
        yield InferRequest("m", {"x": "text"})  # type: ignore[dict-item]

    with FakeServer() as server:
        async with opened(kind, server.url) as client:
            with pytest.raises(TensorError, match="input 'x' of model 'm': got a str"):
                await collect(client.stream(requests()), items)
    assert values(items) == [1, 2]


@KINDS
async def test_leaving_a_stream_early_cancels_it_on_the_server(kind: Any) -> None:
    cancelled = threading.Event()

    def endless(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        yield from echo_stream(requests, context)
        cancelled.wait()

    with FakeServer(stream=endless) as server:
        async with opened(kind, server.url) as client:
            stream = client.stream(requests_of(1))
            if kind is Client:
                assert next(stream)["x"].tolist() == [1]
                stream.close()
            else:
                assert (await anext(stream))["x"].tolist() == [1]
                await stream.aclose()
            await asyncio.to_thread(cancelled.wait)


async def test_one_client_carries_many_calls_at_once() -> None:
    arrived = threading.Barrier(4)

    def meet(request: Any, context: grpc.ServicerContext) -> Any:
        arrived.wait()
        return echo(request, context)

    with FakeServer(meet) as server:
        async with AsyncClient(server.url) as client:
            calls = [client.infer("m", {"x": np.array([i])}) for i in range(4)]
            results = await asyncio.gather(*calls)
        with Client(server.url) as blocking:
            calls_in_threads = [
                asyncio.to_thread(blocking.infer, "m", {"x": np.array([i])}) for i in range(4)
            ]
            more = await asyncio.gather(*calls_in_threads)
    assert [int(r["x"][0]) for r in results] == list(range(4))
    assert [int(r["x"][0]) for r in more] == list(range(4))
