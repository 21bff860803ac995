"""InferStream with decoupled requests: who waits for whom, what is told to the core."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.unit.frontend.test_stream import FakeContext, assert_alone, stream

from penstock.core import Call, Responses, StreamReply
from penstock.errors import UnavailableError

CODE_OF_PARTS = -1


class FakeCall:
    """A decoupled request that the core has."""

    is_decoupled = True

    def __init__(self) -> None:
        self.is_cancelled = False
        self.credits: list[tuple[int, int]] = []

    def cancel(self) -> None:
        self.is_cancelled = True

    def taken(self, count: int, size_bytes: int) -> None:
        self.credits.append((count, size_bytes))

    def retry_after_ms(self) -> int:
        return 70


class FakeRequests:
    """A core whose requests are answered by hand; those that begin with `plain` at once."""

    def __init__(self) -> None:
        self.calls: dict[bytes, FakeCall] = {}
        self.responses: dict[bytes, Responses] = {}
        self._came = asyncio.Event()

    async def infer(self, request: bytes) -> StreamReply | Responses:
        if request.startswith(b"plain"):
            return StreamReply(request, 0, "")
        responses = Responses(asyncio.get_running_loop())
        self.calls[request] = FakeCall()
        responses.began(cast(Call, self.calls[request]))
        self.responses[request] = responses
        self._came.set()
        return responses

    async def came(self, count: int) -> None:
        while len(self.responses) < count:
            self._came.clear()
            await self._came.wait()


async def until(is_so: Callable[[], bool]) -> None:
    """Lets the loop go round until it is."""
    async with asyncio.timeout(10):
        while not is_so():
            turn = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(turn.set_result, None)
            await turn


async def test_responses_go_as_they_come_and_each_is_told_of() -> None:
    requests, context = FakeRequests(), FakeContext(b"a", b"bb", b"plain")
    context.half_close()
    run = asyncio.create_task(stream(context, infer=requests.infer).run())
    await requests.came(2)
    requests.responses[b"bb"].put(CODE_OF_PARTS, [b"b1", b"b2"], None)
    await until(lambda: len(context.written) == 3)
    requests.responses[b"a"].put(CODE_OF_PARTS, [b"a1"], None)
    requests.responses[b"a"].put(0, b"final", None)
    await until(lambda: len(context.written) == 5)
    assert not run.done()
    requests.responses[b"bb"].put(0, None, None)
    await run
    assert sorted(context.written) == [b"a1", b"b1", b"b2", b"final", b"plain"]
    assert context.written.index(b"b1") < context.written.index(b"b2")
    assert requests.calls[b"bb"].credits == [(1, 7), (1, 7)]
    assert requests.calls[b"a"].credits == [(1, 7)]  # the final one takes no room
    assert not any(call.is_cancelled for call in requests.calls.values())
    await assert_alone()


async def test_nothing_is_credited_before_it_is_written() -> None:
    requests, context = FakeRequests(), FakeContext(b"a")
    may_write = asyncio.Event()

    async def write(message: bytes) -> None:
        await may_write.wait()
        context.written.append(message)

    context.write = write  # type: ignore[method-assign]
    context.half_close()
    run = asyncio.create_task(stream(context, infer=requests.infer).run())
    await requests.came(1)
    requests.responses[b"a"].put(CODE_OF_PARTS, [b"1", b"2"], None)
    requests.responses[b"a"].put(0, None, None)
    await until(lambda: requests.responses[b"a"]._is_done)
    assert requests.calls[b"a"].credits == []
    may_write.set()
    await run
    assert requests.calls[b"a"].credits == [(1, 6), (1, 6)]


async def test_running_requests_hold_their_places() -> None:
    requests, context = FakeRequests(), FakeContext(b"a", b"b", b"c")
    context.half_close()
    run = asyncio.create_task(stream(context, infer=requests.infer, max_inflight=2).run())
    await requests.came(2)
    await until(lambda: context.inbox.qsize() == 2)
    requests.responses[b"a"].put(0, None, None)
    await requests.came(3)
    for name in (b"b", b"c"):
        requests.responses[name].put(0, None, None)
    await run
    assert list(requests.responses) == [b"a", b"b", b"c"]
    assert context.inbox.empty()


async def test_client_that_goes_cancels_what_runs() -> None:
    requests, context = FakeRequests(), FakeContext(b"a", b"b")
    run = asyncio.create_task(stream(context, infer=requests.infer).run())
    await requests.came(2)
    requests.responses[b"b"].put(0, None, None)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await assert_alone()
    assert requests.calls[b"a"].is_cancelled
    assert not requests.calls[b"b"].is_cancelled


async def test_client_that_goes_before_the_first_response_is_awaited() -> None:
    requests = FakeRequests()

    async def infer(request: bytes) -> StreamReply | Responses:
        run.cancel()  # ends it before anything that follows from the request has begun
        return await requests.infer(request)

    run = asyncio.create_task(stream(FakeContext(b"a"), infer=infer).run())
    with pytest.raises(asyncio.CancelledError):
        await run
    await assert_alone()
    assert requests.calls[b"a"].is_cancelled


@pytest.mark.parametrize("half_closes", [False, True])
async def test_failure_ends_the_stream_when_asked_for_statuses(half_closes: bool) -> None:
    requests = FakeRequests()
    context = FakeContext(b"a", b"b", metadata=(("triton_grpc_error", "true"),))
    if half_closes:
        context.half_close()
    run = asyncio.create_task(stream(context, infer=requests.infer).run())
    await requests.came(2)
    requests.responses[b"a"].put(14, b"e", "out of tokens")
    with pytest.raises(UnavailableError, match="out of tokens"):
        await run
    await assert_alone()
    assert requests.calls[b"b"].is_cancelled


async def test_failure_does_not_wait_for_a_slow_request_before_it() -> None:
    requests = FakeRequests()
    is_slow_cancelled = asyncio.Event()

    async def infer(request: bytes) -> StreamReply | Responses:
        if request != b"slow":
            return await requests.infer(request)
        try:
            never: asyncio.Future[StreamReply] = asyncio.get_running_loop().create_future()
            return await never
        finally:
            is_slow_cancelled.set()

    context = FakeContext(b"slow", b"a", metadata=(("triton_grpc_error", "true"),))
    run = asyncio.create_task(stream(context, infer=infer).run())
    await requests.came(1)
    requests.responses[b"a"].put(14, b"e", "out of tokens")
    async with asyncio.timeout(10):
        with pytest.raises(UnavailableError, match="out of tokens"):
            await run
    assert is_slow_cancelled.is_set()
    await assert_alone()


async def test_write_that_fails_ends_the_stream() -> None:
    requests, context = FakeRequests(), FakeContext(b"a")
    context.write_failure = RuntimeError("gone")
    run = asyncio.create_task(stream(context, infer=requests.infer).run())
    await requests.came(1)
    requests.responses[b"a"].put(CODE_OF_PARTS, [b"1"], None)
    with pytest.raises(RuntimeError, match="gone"):
        await run
    await assert_alone()
    assert requests.calls[b"a"].is_cancelled


async def test_closing_server_answers_what_was_read() -> None:
    requests, context = FakeRequests(), FakeContext(b"a")
    closing = asyncio.Event()

    async def wait_closing() -> Any:
        await closing.wait()

    run = asyncio.create_task(stream(context, infer=requests.infer, closing=wait_closing).run())
    await requests.came(1)
    closing.set()
    requests.responses[b"a"].put(CODE_OF_PARTS, [b"1"], None)
    requests.responses[b"a"].put(0, None, None)
    with pytest.raises(UnavailableError, match="shutting down"):
        await run
    assert context.written == [b"1"]
    await assert_alone()


async def test_exhaustion_says_when_to_come_back() -> None:
    requests = FakeRequests()
    responses = await requests.infer(b"a")
    assert isinstance(responses, Responses)
    responses.put(8, b"e", "too much")
    assert [reply.retry_after_ms async for reply in responses] == [70]
