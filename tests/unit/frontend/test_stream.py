"""InferStream without a wire: no task outlives it, whichever way it ends."""

import asyncio
from typing import Any

import grpc
import pytest

from penstock.core import StreamReply
from penstock.errors import NotFoundError, UnavailableError
from penstock.frontend.stream import InferStream


class FakeContext:
    """A stream whose client sent everything at once."""

    def __init__(self, *requests: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        for request in requests:
            self.inbox.put_nowait(request)
        self.written: list[bytes] = []
        self.metadata = metadata
        self.write_failure: Exception | None = None

    def half_close(self) -> None:
        self.inbox.put_nowait(grpc.aio.EOF)  # type: ignore[attr-defined]

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    async def read(self) -> Any:
        return await self.inbox.get()

    async def write(self, message: bytes) -> None:
        if self.write_failure is not None:
            raise self.write_failure
        self.written.append(message)


async def echo(request: bytes) -> StreamReply:
    return StreamReply(request, 0, "")


async def never() -> None:
    await asyncio.Event().wait()


def stream(context: FakeContext, **changes: Any) -> InferStream:
    options = {"infer": echo, "context": context, "max_inflight": 4, "closing": never, **changes}
    return InferStream(**options)


async def assert_alone() -> None:
    """Nothing but this test is left on the loop, once cancellations have gone through."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), timeout=10)


async def test_half_close_ends_after_the_last_reply() -> None:
    context = FakeContext(b"1", b"2", b"3", b"4", b"5", b"6")
    context.half_close()
    await stream(context, max_inflight=2).run()
    assert context.written == [b"1", b"2", b"3", b"4", b"5", b"6"]
    await assert_alone()


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_no_more_than_the_limit_are_under_way(limit: int) -> None:
    under_way = most = 0

    async def infer(request: bytes) -> StreamReply:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.wait({asyncio.ensure_future(echo(request))})
        under_way -= 1
        return StreamReply(request, 0, "")

    context = FakeContext(*(b"%d" % i for i in range(10)))
    context.half_close()
    await stream(context, infer=infer, max_inflight=limit).run()
    assert len(context.written) == 10
    assert most == limit


async def test_cancelled_stream_leaves_no_task() -> None:
    cancelled = []

    async def infer(request: bytes) -> StreamReply:
        try:
            await never()
        finally:
            cancelled.append(request)
        raise AssertionError("never ends")

    run = asyncio.create_task(stream(FakeContext(b"1", b"2"), infer=infer).run())
    await asyncio.wait({run}, timeout=0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await assert_alone()
    assert sorted(cancelled) == [b"1", b"2"]


async def test_client_that_is_gone_at_a_write_leaves_no_task() -> None:
    context = FakeContext(b"1", b"2", b"3")
    context.write_failure = RuntimeError("gone")
    with pytest.raises(RuntimeError, match="gone"):
        await stream(context).run()
    await assert_alone()


async def test_failed_read_ends_the_stream() -> None:
    context = FakeContext()

    async def read() -> Any:
        raise RuntimeError("torn")

    context.read = read  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="torn"):
        await stream(context).run()
    await assert_alone()


async def test_closing_server_answers_what_was_read() -> None:
    closing = asyncio.Event()
    context = FakeContext(b"1", b"2")

    async def infer(request: bytes) -> StreamReply:
        closing.set()
        return await echo(request)

    async def wait_closing() -> None:
        await closing.wait()

    with pytest.raises(UnavailableError, match="shutting down"):
        await stream(context, infer=infer, closing=wait_closing).run()
    assert context.written[0] == b"1"
    await assert_alone()


async def test_first_failure_ends_the_stream_when_asked_for_statuses() -> None:
    async def infer(request: bytes) -> StreamReply:
        if request == b"bad":
            return StreamReply(b"e", 5, "not there")
        return await echo(request)

    context = FakeContext(b"1", b"bad", b"2", metadata=(("triton_grpc_error", "true"),))
    with pytest.raises(NotFoundError, match="not there"):
        await stream(context, infer=infer).run()
    assert context.written == [b"1"]
    await assert_alone()
