"""ModelInfer on the wire, with a fake core behind the frontend."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.support import raw_http2 as http2
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.raw_grpc import RawClient

from penstock.errors import Code, CoreError, NotFoundError, UnavailableError, core_error
from penstock.frontend.readiness import Readiness
from penstock.frontend.status import GRPC_STATUS


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with serve_frontend() as started:
        yield started


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[RawClient]:
    async with server.client() as connected:
        yield connected


def fail(server: FakeServer, error: Exception) -> None:
    async def answer(_request: bytes) -> bytes:
        raise error

    server.core.answer = answer


def hold(server: FakeServer) -> asyncio.Event:
    """Requests are answered once the event is set."""
    release = asyncio.Event()

    async def answer(request: bytes) -> bytes:
        await release.wait()
        return b"late reply to " + request

    server.core.answer = answer
    return release


async def test_bytes_pass_through_untouched(server: FakeServer, client: RawClient) -> None:
    payload = bytes(range(256)) * 8
    assert await client.unary("ModelInfer", payload) == b"reply to " + payload
    assert server.core.asked == [payload]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_request_reaches_the_core_inflated(
    server: FakeServer, client: RawClient, compression: grpc.Compression
) -> None:
    payload = b"x" * 100_000
    await client.unary("ModelInfer", payload, compression=compression)
    assert server.core.asked == [payload]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_every_code_arrives_with_its_text(
    server: FakeServer, client: RawClient, code: Code
) -> None:
    fail(server, core_error(code, f"because of {code.name} \u00e4"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.unary("ModelInfer")
    assert caught.value.code() == GRPC_STATUS[code]
    assert caught.value.details() == f"because of {code.name} \u00e4"


async def test_defect_becomes_internal_with_an_incident(
    server: FakeServer, client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    fail(server, RuntimeError("a secret"))
    with pytest.raises(grpc.aio.AioRpcError, match="incident") as caught:
        await client.unary("ModelInfer")
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "a secret" not in str(caught.value)
    assert "a secret" in caplog.text


async def test_unknown_model_during_the_first_load_is_unavailable(
    server: FakeServer, client: RawClient
) -> None:
    fail(server, NotFoundError("Request for unknown model: 'm' is not found"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.unary("ModelInfer")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    server.readiness.__dict__.update(Readiness(lambda: True).__dict__)  # as before the start
    with pytest.raises(grpc.aio.AioRpcError, match="still loading models") as caught:
        await client.unary("ModelInfer")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_deadline_of_the_call_reaches_the_core(server: FakeServer, client: RawClient) -> None:
    await client.unary("ModelInfer")
    before = time.monotonic_ns()
    await client.unary("ModelInfer", timeout=3600)
    none, deadline = server.core.deadlines
    assert none == 0
    assert before < deadline < time.monotonic_ns() + 4000 * 10**9  # the wire rounds it up


async def test_passed_deadline_is_deadline_exceeded_and_cancels_in_the_core(
    server: FakeServer, client: RawClient
) -> None:
    hold(server)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.unary("ModelInfer", b"q", timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await server.core.left.wait()
    assert server.core.cancelled == [b"q"]


async def test_caller_that_leaves_cancels_in_the_core(
    server: FakeServer, client: RawClient
) -> None:
    hold(server)
    call = client.unary("ModelInfer", b"q")
    await server.core.arrived.wait()
    call.cancel()
    await server.core.left.wait()
    assert server.core.cancelled == [b"q"]


async def test_message_over_the_limit_is_resource_exhausted() -> None:
    async with serve_frontend(max_message_bytes=10_000) as server:
        async with server.client() as client:
            assert await client.unary("ModelInfer", b"x" * 9_000)
            with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
                await client.unary("ModelInfer", b"x" * 20_000)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_message_of_more_than_4_megabytes_passes_by_default(
    server: FakeServer,
) -> None:
    unlimited = {"grpc__max_receive_message_length": -1, "grpc__max_send_message_length": -1}
    async with server.client(**unlimited) as client:
        reply = await client.unary("ModelInfer", b"x" * (20 << 20))
    assert len(reply) > 20 << 20


async def test_connections_over_the_limit_are_refused() -> None:
    async with serve_frontend(max_connections=1) as server:
        async with server.client() as first:
            assert await first.unary("ModelInfer", b"1")
            async with server.client() as second:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await second.unary("ModelInfer", b"2")
            assert await first.unary("ModelInfer", b"3")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_stop_finishes_what_is_in_flight_and_refuses_the_rest(
    server: FakeServer, client: RawClient
) -> None:
    release = hold(server)
    call = client.unary("ModelInfer", b"q")
    await server.core.arrived.wait()
    stop = asyncio.create_task(server.transport.stop(60))
    await asyncio.wait({stop}, timeout=0)  # it has begun: nobody is taken any more
    async with server.client() as late:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late.unary("ModelInfer", b"late")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not stop.done()
    release.set()
    assert await call == b"late reply to q"
    await stop


async def test_stop_cancels_what_outlasts_its_time(server: FakeServer, client: RawClient) -> None:
    hold(server)
    call = client.unary("ModelInfer", b"q")
    await server.core.arrived.wait()
    await server.transport.stop(0.01)
    await server.core.left.wait()
    assert server.core.cancelled == [b"q"]
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_overload_of_the_core_is_told_at_once(server: FakeServer, client: RawClient) -> None:
    fail(server, UnavailableError("Exceeds maximum queue size"))
    with pytest.raises(grpc.aio.AioRpcError, match="Exceeds maximum queue size"):
        await client.unary("ModelInfer")
    assert issubclass(UnavailableError, CoreError)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_request_is_refused_where_compression_is_off(
    compression: grpc.Compression,
) -> None:
    async with serve_frontend(grpc_compression=False) as server:
        async with server.client() as client:
            assert await client.unary("ModelInfer", b"plain")
            with pytest.raises(grpc.aio.AioRpcError, match="disabled") as caught:
                await client.unary("ModelInfer", b"xyz" * 99, compression=compression)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert server.core.asked == [b"plain"]


async def test_no_rpc_over_the_limit_of_a_connection_is_refused() -> None:
    async with serve_frontend(max_concurrent_streams=8) as server:
        async with server.client() as client:
            assert await client.unary("ServerLive")  # the client has the server's settings
            for _ in range(5):
                calls = [client.unary("ModelInfer", b"%d" % number) for number in range(200)]
                replies = await asyncio.gather(*calls)
                assert replies == [b"reply to %d" % number for number in range(200)]


async def test_limit_of_a_connection_holds_for_a_client_that_ignores_it(transport: str) -> None:
    async with serve_frontend(max_concurrent_streams=2) as server:
        hold(server)
        async with http2.connection(server.transport.port) as rude:
            await rude.send(http2.PREFACE, http2.frame(http2.SETTINGS, 0, 0))
            await rude.send(http2.frame(http2.SETTINGS, 1, 0))  # the server's are acknowledged
            for stream in range(1, 41, 2):
                request = http2.message(b"%d" % stream)
                await rude.send(
                    http2.headers(stream, server.path("ModelInfer")), http2.data(stream, request)
                )
            refused = struct.pack(">BBI", http2.RST_STREAM, 0, 39)
            received = b""
            while refused not in received and (more := await rude.receive(30)):
                received += more
            # grpcio refuses the calls over the limit, the native transport the whole client.
            assert (refused in received) == (transport == "grpcio")
            assert len(server.core.asked) <= 2
            async with server.client() as other:
                assert await other.unary("ServerLive")


async def test_rpcs_over_the_limit_of_a_connection_wait_for_their_turn() -> None:
    async with serve_frontend(max_concurrent_streams=2) as server:
        release = hold(server)
        async with server.client() as client:
            assert await client.unary("ServerLive")  # the client has the server's settings
            calls = [client.unary("ModelInfer", b"%d" % number) for number in range(4)]
            while len(server.core.asked) < 2:
                await server.core.arrived.wait()
                server.core.arrived.clear()
            async with server.client() as other:
                assert await other.unary("ServerLive")
            assert len(server.core.asked) == 2
            release.set()
            replies = await asyncio.gather(*calls)
    assert sorted(replies) == [b"late reply to %d" % number for number in range(4)]
