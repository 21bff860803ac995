"""Health and metrics over HTTP, and ports that are taken."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from tests.support.fake_frontend import serve_frontend
from tests.support.http import ask

from penstock.errors import StartupError
from penstock.frontend import http_server
from penstock.frontend.addresses import bind, host_port
from penstock.frontend.http import Receive, Routes, Scope, Send, health_routes, metrics_routes
from penstock.frontend.http_server import HttpServer
from penstock.frontend.readiness import Readiness

pytestmark = pytest.mark.any_transport


@asynccontextmanager
async def serving(routes: Routes) -> AsyncIterator[HttpServer]:
    server = HttpServer(routes, "127.0.0.1", 0, "HTTP")
    server.bind()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_live_always_and_ready_as_readiness_says() -> None:
    readiness = Readiness(lambda: True)
    async with serving(health_routes(readiness)) as server:
        live = await ask(server.port, "/v2/health/live")
        assert (live.status, json.loads(live.body)) == (200, {"live": True})
        ready = await ask(server.port, "/v2/health/ready")
        assert (ready.status, json.loads(ready.body)) == (400, {"ready": False})
        readiness.start()
        ready = await ask(server.port, "/v2/health/ready?verbose=1")
        assert (ready.status, json.loads(ready.body)) == (200, {"ready": True})
        readiness.withdraw()
        assert (await ask(server.port, "/v2/health/ready")).status == 400
        assert (await ask(server.port, "/v2/health/live")).status == 200


async def test_unknown_path_is_404_and_wrong_verb_405_with_json() -> None:
    async with serving(health_routes(Readiness(lambda: True))) as server:
        unknown = await ask(server.port, "/v2/nothing")
        assert (unknown.status, json.loads(unknown.body)) == (404, {"error": "Not Found"})
        wrong = await ask(server.port, "/v2/health/live", method="POST")
        assert (wrong.status, json.loads(wrong.body)) == (405, {"error": "Method Not Allowed"})
        assert wrong.headers["allow"] == "GET, HEAD"
        assert unknown.headers["content-type"] == "application/json"


async def test_head_has_no_body() -> None:
    async with serving(health_routes(Readiness(lambda: True))) as server:
        reply = await ask(server.port, "/v2/health/live", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")


async def test_metrics_are_rendered_per_scrape() -> None:
    counts = iter(range(5))
    routes = metrics_routes(lambda: ("text/x", b"scrape %d" % next(counts)))
    async with serving(routes) as server:
        assert (await ask(server.port, "/metrics")).body == b"scrape 0"
        second = await ask(server.port, "/metrics")
    assert (second.body, second.headers["content-type"]) == (b"scrape 1", "text/x")


async def test_stop_frees_the_port() -> None:
    async with serving(health_routes(Readiness(lambda: True))) as server:
        port = server.port
        await ask(port, "/v2/health/live")
    for bound in bind("127.0.0.1", port, "a test"):
        bound.close()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


async def test_taken_http_port_is_one_clear_line(taken_port: int) -> None:
    server = HttpServer(health_routes(Readiness(lambda: True)), "127.0.0.1", taken_port, "HTTP")
    with pytest.raises(StartupError) as caught:
        server.bind()
    await server.stop()
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{taken_port} for HTTP: Address already in use"
    )


async def test_taken_grpc_port_is_one_clear_line(taken_port: int) -> None:
    with pytest.raises(StartupError) as caught:
        async with serve_frontend(grpc_port=taken_port):
            pass
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{taken_port} for gRPC: Address already in use"
    )


async def test_two_servers_never_share_a_grpc_port() -> None:
    async with serve_frontend() as first:
        with pytest.raises(StartupError, match="Address already in use"):
            async with serve_frontend(grpc_port=first.transport.port):
                pass


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("nowhere.invalid", "[A-Z]"),  # in the resolver's words
        ("a..b", "not the name of a host"),
        ("a" * 300, "not the name of a host"),
    ],
)
def test_unknown_host_is_a_startup_error(host: str, reason: str) -> None:
    with pytest.raises(StartupError, match=f"^cannot listen on {host}:1 for HTTP: {reason}"):
        bind(host, 1, "HTTP")


def test_ipv6_address_is_written_in_brackets() -> None:
    assert host_port("::1", 80) == "[::1]:80"
    assert host_port("localhost", 80) == "localhost:80"


ANSWERED = b"GET /v2/health/live HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /v2/health/li", ANSWERED + b"GET /v2"])
async def test_connection_that_brings_no_request_is_dropped(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_REQUEST_TIMEOUT_S", 0.1)
    async with serving(health_routes(Readiness(lambda: True))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        async with asyncio.timeout(30):
            with suppress(ConnectionResetError):
                await reader.read()
        writer.close()


async def test_connections_go_to_the_successor_once_it_has_the_sockets() -> None:
    """Idle ones at once, one with a request after its answer, one without any once it has come."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow_or_quick(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            entered.set()
            await go_on.wait()
        headers = [(b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})

    server = HttpServer(slow_or_quick, "127.0.0.1", 0, "HTTP")
    server.bind()
    await server.start()
    try:
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            links = [await stack.enter_async_context(connected(server.port)) for _ in range(3)]
            (idle, idle_to), (busy, busy_to), (fresh, fresh_to) = links
            idle_to.write(b"GET /quick HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await idle.readuntil(b"\r\n\r\nx")).startswith(b"HTTP/1.1 200")
            busy_to.write(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            await entered.wait()
            server.turn_away()  # there is nobody else: all stays
            idle_to.write(b"GET /quick HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await idle.readuntil(b"\r\n\r\nx")).startswith(b"HTTP/1.1 200")
            server.share()
            server.turn_away()
            assert await idle.read() == b""
            go_on.set()
            assert (await busy.read()).startswith(b"HTTP/1.1 200")
            fresh_to.write(b"GET /quick HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await fresh.readuntil(b"\r\n\r\nx")).startswith(b"HTTP/1.1 200")
    finally:
        await server.stop()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_slow_client_does_not_hold_up_the_stop() -> None:
    async with serving(health_routes(Readiness(lambda: True))) as server:
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /v2/health/li")
        await writer.drain()
    writer.close()
