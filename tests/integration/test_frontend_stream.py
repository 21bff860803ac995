"""ModelStreamInfer on the wire, with a fake core behind the frontend."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.raw_grpc import RawClient

from penstock.errors import Code, InvalidArgumentError, core_error
from penstock.frontend.status import GRPC_STATUS
from penstock.frontend.stream import SHUTTING_DOWN


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with serve_frontend(max_inflight_per_stream=4) as started:
        yield started


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[RawClient]:
    async with server.client() as connected:
        yield connected


class Gate:
    """A core whose requests wait, each for its own turn."""

    def __init__(self, server: FakeServer) -> None:
        self.releases: dict[bytes, asyncio.Event] = {}
        self.arrivals: asyncio.Queue[bytes] = asyncio.Queue()
        server.core.answer = self.answer

    async def answer(self, request: bytes) -> bytes:
        release = self.releases.setdefault(request, asyncio.Event())
        self.arrivals.put_nowait(request)
        await release.wait()
        return b"reply to " + request


async def refuse_bad(request: bytes) -> bytes:
    if request == b"bad":
        raise InvalidArgumentError("no good")
    return b"reply to " + request


async def test_replies_come_in_the_order_of_the_requests(
    server: FakeServer, client: RawClient
) -> None:
    gate = Gate(server)
    call = client.stream()
    for request in (b"1", b"2", b"3"):
        await call.write(request)
        assert await gate.arrivals.get() == request  # pipelined: none is answered yet
    gate.releases[b"3"].set()
    gate.releases[b"2"].set()
    gate.releases[b"1"].set()
    replies = [await call.read() for _ in range(3)]
    assert replies == [b"reply to 1", b"reply to 2", b"reply to 3"]
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF  # type: ignore[attr-defined]
    assert await call.code() == grpc.StatusCode.OK


async def test_reading_stops_at_the_limit(server: FakeServer, client: RawClient) -> None:
    gate = Gate(server)
    call = client.stream()
    requests = [b"%d" % i for i in range(6)]
    for request in requests:
        await call.write(request)
    assert [await gate.arrivals.get() for _ in range(4)] == requests[:4]
    await client.unary("ServerLive")  # the loop has gone round, and round again
    assert gate.arrivals.empty()
    gate.releases[b"0"].set()
    assert await call.read() == b"reply to 0"
    assert await gate.arrivals.get() == b"4"
    call.cancel()


async def test_half_close_finishes_what_is_in_flight(server: FakeServer, client: RawClient) -> None:
    gate = Gate(server)
    call = client.stream()
    for request in (b"1", b"2"):
        await call.write(request)
        await gate.arrivals.get()
    await call.done_writing()
    for release in gate.releases.values():
        release.set()
    assert [reply async for reply in call] == [b"reply to 1", b"reply to 2"]
    assert await call.code() == grpc.StatusCode.OK


async def test_empty_stream_ends_ok(client: RawClient) -> None:
    call = client.stream()
    await call.done_writing()
    assert [reply async for reply in call] == []
    assert await call.code() == grpc.StatusCode.OK


async def test_failure_is_a_reply_and_the_stream_goes_on(
    server: FakeServer, client: RawClient
) -> None:
    server.core.answer = refuse_bad
    replies = [reply async for reply in client.stream([b"1", b"bad", b"2"])]
    assert replies == [b"reply to 1", b"error: no good", b"reply to 2"]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_client_may_ask_for_failures_as_statuses(
    server: FakeServer, client: RawClient, code: Code
) -> None:
    async def answer(request: bytes) -> bytes:
        if request == b"bad":
            raise core_error(code, "no good")
        return request

    server.core.answer = answer
    # Nothing behind it: grpc.aio loses the status of a stream that it is still sending on.
    call = client.stream([b"1", b"bad"], metadata=(("triton_grpc_error", "true"),))
    replies = []
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        async for reply in call:
            replies.append(reply)
    assert replies == [b"1"]
    assert await call.code() == GRPC_STATUS[code]
    assert await call.details() == "no good"


async def test_other_value_of_the_metadata_changes_nothing(
    server: FakeServer, client: RawClient
) -> None:
    server.core.answer = refuse_bad
    call = client.stream([b"bad"], metadata=(("triton_grpc_error", "false"),))
    assert [reply async for reply in call] == [b"error: no good"]


async def test_cancel_cancels_everything_in_flight(server: FakeServer, client: RawClient) -> None:
    gate = Gate(server)
    call = client.stream()
    for request in (b"1", b"2", b"3"):
        await call.write(request)
        await gate.arrivals.get()
    call.cancel()
    while len(server.core.cancelled) < 3:
        await server.core.left.wait()
        server.core.left.clear()
    assert sorted(server.core.cancelled) == [b"1", b"2", b"3"]


async def test_deadline_of_the_stream_reaches_each_request(
    server: FakeServer, client: RawClient
) -> None:
    call = client.stream([b"1", b"2"], timeout=3600)
    assert len([reply async for reply in call]) == 2
    assert len(set(server.core.deadlines)) == 1
    assert server.core.deadlines[0] > 0


async def test_defect_ends_the_stream_with_internal(
    server: FakeServer, client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_request: bytes) -> bytes:
        raise RuntimeError("a secret")

    server.core.answer = answer
    call = client.stream([b"1"])
    with pytest.raises(grpc.aio.AioRpcError, match="incident"):
        await call.read()
    assert await call.code() == grpc.StatusCode.INTERNAL
    assert "a secret" in caplog.text


async def test_closing_server_answers_what_it_read_and_ends_the_stream(
    server: FakeServer, client: RawClient
) -> None:
    gate = Gate(server)
    call = client.stream()
    await call.write(b"1")
    await gate.arrivals.get()
    server.readiness.close()
    stop = asyncio.create_task(server.transport.stop(60))
    gate.releases[b"1"].set()
    assert await call.read() == b"reply to 1"
    with pytest.raises(grpc.aio.AioRpcError, match=SHUTTING_DOWN):
        await call.read()
    assert await call.code() == grpc.StatusCode.UNAVAILABLE
    await stop
