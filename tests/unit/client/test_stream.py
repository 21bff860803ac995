"""Streams of both clients over a mock transport: order, errors as items or raised, early ends."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, closing
from typing import Any

import numpy as np
import pytest

from penstock_client import (
    AsyncClient,
    AsyncMockTransport,
    Call,
    Client,
    InferRequest,
    InferResult,
    MockTransport,
    StreamResponseError,
    TensorError,
    UnavailableError,
)
from penstock_client._messages import pb


def request(number: int) -> InferRequest:
    return InferRequest("m", {"x": np.array([number], np.int32)}, request_id=str(number))


def respond(message: Any) -> Any:
    """Echoes; a request with id 13 fails."""
    if message.id == "13":
        failed = pb.ModelInferResponse(id=message.id, model_name=message.model_name)
        return pb.ModelStreamInferResponse(error_message="unlucky", infer_response=failed)
    output = pb.ModelInferResponse.InferOutputTensor(name="y", datatype="INT32", shape=[1])
    return pb.ModelStreamInferResponse(
        infer_response=pb.ModelInferResponse(
            id=message.id,
            model_name=message.model_name,
            outputs=[output],
            raw_output_contents=message.raw_input_contents,
        )
    )


class Server:
    """The far end of a mock stream; fails the stream itself after `breaks_after` responses."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.breaks_after = breaks_after
        self.calls: list[Call] = []
        self.responses = 0
        self.was_closed_early = False

    def _respond(self, message: Any) -> Any:
        if self.responses == self.breaks_after:
            raise UnavailableError("GOAWAY")
        self.responses += 1
        return respond(message)

    def serve(self, call: Call, messages: Iterator[Any]) -> Iterator[Any]:
        self.calls.append(call)
        try:
            for message in messages:
                yield self._respond(message)
        except GeneratorExit:
            self.was_closed_early = True
            raise

    async def serve_async(self, call: Call, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        self.calls.append(call)
        async for message in messages:
            yield self._respond(message)


def no_unary(call: Call, message: Any) -> Any:
    raise AssertionError("a stream sends no unary call")


class Sync:
    """Collects a stream of the blocking client."""

    async def collect(
        self, server: Server, requests: Iterable[InferRequest], into: list[Any], **options: Any
    ) -> None:
        with Client("mock", transport=MockTransport(no_unary, server.serve)) as client:
            for item in client.stream(requests, **options):
                into.append(item)


class Async:
    """Collects a stream of the asyncio client."""

    async def collect(self, server: Server, requests: Any, into: list[Any], **options: Any) -> None:
        transport = AsyncMockTransport(no_unary, server.serve_async)
        async with AsyncClient("mock", transport=transport) as client:
            async for item in client.stream(requests, **options):
                into.append(item)


BOTH = pytest.mark.parametrize("kind", [Sync(), Async()], ids=["sync", "asyncio"])


def values(items: list[Any]) -> list[Any]:
    return [int(item["y"][0]) if isinstance(item, InferResult) else type(item) for item in items]


@BOTH
async def test_responses_come_in_order_with_their_ids(kind: Any) -> None:
    items: list[Any] = []
    await kind.collect(Server(), map(request, range(5)), items)
    assert values(items) == [0, 1, 2, 3, 4]
    assert [item.id for item in items] == ["0", "1", "2", "3", "4"]
    assert all(item.is_final for item in items)


@BOTH
async def test_failed_request_is_an_item_and_the_stream_goes_on(kind: Any) -> None:
    server = Server()
    items: list[Any] = []
    await kind.collect(server, map(request, [12, 13, 14]), items)
    assert values(items) == [12, StreamResponseError, 14]
    assert str(items[1]) == "UNKNOWN: unlucky [model 'm', request '13']"
    assert server.calls[0].headers == ()


@BOTH
async def test_failed_request_ends_the_stream_when_asked(kind: Any) -> None:
    server = Server()
    items: list[Any] = []
    with pytest.raises(StreamResponseError, match="unlucky"):
        await kind.collect(server, map(request, [12, 13, 14]), items, raise_errors=True)
    assert values(items) == [12]
    assert server.calls[0].headers == (("triton_grpc_error", "true"),)


@BOTH
async def test_stream_that_breaks_raises_and_is_not_retried(kind: Any) -> None:
    server = Server(breaks_after=2)
    items: list[Any] = []
    with pytest.raises(UnavailableError, match="GOAWAY"):
        await kind.collect(server, map(request, range(5)), items)
    assert values(items) == [0, 1]
    assert len(server.calls) == 1


@BOTH
@pytest.mark.parametrize(
    ("options", "timeout_s"),
    [({}, None), ({"deadline_s": float("inf")}, None), ({"deadline_s": 5.0}, 5.0)],
)
async def test_stream_has_only_the_deadline_it_is_given(
    kind: Any, options: dict[str, float], timeout_s: float | None
) -> None:
    server = Server()
    await kind.collect(server, [], [], **options)
    assert server.calls[0].timeout_s == timeout_s


@BOTH
async def test_request_that_cannot_be_sent_raises_after_earlier_responses(kind: Any) -> None:
    items: list[Any] = []
    requests = [request(1), InferRequest("m", {"x": [2]})]  # type: ignore[dict-item]
    with pytest.raises(TensorError, match="input 'x' of model 'm'"):
        await kind.collect(Server(), requests, items)
    assert values(items) == [1]


async def test_asynchronous_requests_may_wait_for_responses() -> None:
    items: list[Any] = []

    async def requests() -> AsyncIterator[InferRequest]:
        yield request(1)
        assert values(items) == [1]
        yield request(items[-1]["y"][0] + 1)

    await Async().collect(Server(), requests(), items)
    assert values(items) == [1, 2]


def test_closing_the_generator_closes_the_stream() -> None:
    server = Server()
    client = Client("mock", transport=MockTransport(no_unary, server.serve))
    with closing(client.stream(map(request, range(100)))) as items:
        assert values([next(items)]) == [0]
    assert server.was_closed_early
    assert server.responses == 1


async def test_aclosing_the_generator_ends_the_stream() -> None:
    server = Server()
    transport = AsyncMockTransport(no_unary, server.serve_async)
    client = AsyncClient("mock", transport=transport)
    async with aclosing(client.stream(map(request, range(100)))) as items:
        assert values([await anext(items)]) == [0]
    assert server.responses == 1


async def test_mock_without_a_stream_function_says_so() -> None:
    with pytest.raises(NotImplementedError, match="no stream function"):
        next(Client("mock", transport=MockTransport(no_unary)).stream([]))
