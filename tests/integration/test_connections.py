"""What becomes of a connection by itself, and from where there can be one."""

import asyncio
from pathlib import Path

import grpc
import psutil
import pytest
from tests.support import raw_http2 as http2
from tests.support.access_files import key_entry, write_keys
from tests.support.certificates import Authority
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.fixture_models import write_simple
from tests.support.http import ask
from tests.support.raw_grpc import raw_client
from tests.support.requests import simple_request
from tests.support.run_server import run_server, serve_process, server_config

from penstock.errors import StartupError

GOAWAY = 7
START = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0)


async def frames_until_the_end(
    server: FakeServer, *sent: bytes, answers_pings: bool = False
) -> list[tuple[int, bytes]]:
    """Kind and payload of each frame that a client gets which sends this and no request."""
    frames = []
    async with http2.connection(server.transport.port) as connection:
        await connection.send(START, *sent)
        try:
            async with asyncio.timeout(45):
                while True:
                    header = await connection.reader.readexactly(9)
                    payload = await connection.reader.readexactly(int.from_bytes(header[:3]))
                    frames.append((header[3], payload))
                    if answers_pings and header[3] == http2.PING:
                        await connection.send(http2.frame(http2.PING, http2.ACK, 0, payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            return frames


async def test_connection_of_age_is_told_to_reconnect() -> None:
    async with serve_frontend(grpc_max_connection_age_ms=50) as server:
        frames = await frames_until_the_end(server, answers_pings=True)
    # The last stream, then the code: NO_ERROR.
    assert [payload for kind, payload in frames if kind == GOAWAY and not any(payload[4:8])]


async def test_calls_of_a_connection_of_age_end_with_its_grace(tmp_path: Path) -> None:
    write_simple(tmp_path)
    settings = {"grpc_max_connection_age_ms": 50, "grpc_max_connection_age_grace_ms": 50}
    async with run_server(server_config(tmp_path, **settings)) as server:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"")
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                async with asyncio.timeout(60):
                    async for _ in watch:
                        pass
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.transport("native")
async def test_connections_and_calls_are_told_of_in_the_metrics(tmp_path: Path) -> None:
    write_simple(tmp_path)
    request = simple_request().SerializeToString()
    async with run_server(server_config(tmp_path)) as server:
        async with raw_client(server.grpc_address) as client:
            await client.unary("ModelInfer", request)
            text = (await ask(server.metrics_port, "/metrics")).body.decode()
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert told["penstock_connections"] == "1"
    assert told["penstock_connections_accepted_total"] == "1"
    assert told["penstock_calls_total"] == "1"
    assert float(told["penstock_received_bytes_total"]) > len(request)


async def test_ping_that_nobody_answers_ends_the_connection() -> None:
    settings = {"grpc_keepalive_time_ms": 1000, "grpc_keepalive_timeout_ms": 100}
    async with serve_frontend(**settings) as server:
        frames = await frames_until_the_end(server)
    assert http2.PING in [kind for kind, _ in frames]


async def test_client_that_pings_too_often_is_sent_away() -> None:
    pings = [http2.frame(http2.PING, 0, 0, bytes(8))] * 10
    async with serve_frontend(grpc_min_ping_interval_ms=600_000) as server:
        frames = await frames_until_the_end(server, *pings)
    assert [payload for kind, payload in frames if kind == GOAWAY and b"too_many_pings" in payload]


async def test_nothing_listens_beyond_loopback_unless_told(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path) as server:
        listening = [
            each.laddr.ip.removeprefix("::ffff:")  # gRPC's sockets speak both
            for each in psutil.Process(server.pid).net_connections(kind="inet")
            if each.status == psutil.CONN_LISTEN
        ]
    assert listening == ["127.0.0.1"] * 3
    assert not any("beyond loopback" in line for line in server.lines)


async def ask_all(address: str) -> None:
    """One call of each kind: Python's lane, the core's, a stream."""
    async with raw_client(address) as client:
        request = simple_request().SerializeToString()
        assert await client.unary("ServerLive")
        assert await client.unary("ModelInfer", request)
        assert len([reply async for reply in client.stream([request])]) == 1


async def test_unix_domain_socket_is_served_and_removed(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    path = tmp_path / "grpc.sock"
    config = server_config(tmp_path / "models", grpc_address=f"unix:{path}")
    async with run_server(config) as server:
        assert server.grpc_address == f"unix:{path}"
        await ask_all(f"unix:{path}")
        with pytest.raises(StartupError, match="for gRPC: another server listens there"):
            async with run_server(config):
                raise AssertionError("two servers on one socket")
        await ask_all(f"unix:{path}")
    assert not path.exists()


async def test_rate_of_a_connection_over_a_unix_domain_socket(
    tmp_path: Path, transport: str
) -> None:
    write_simple(tmp_path / "models")
    address = f"unix:{tmp_path / 'grpc.sock'}"
    limits = {"connection_requests_per_second": 0.01, "connection_request_burst": 1}
    config = server_config(tmp_path / "models", grpc_address=address, **limits)
    if transport == "grpcio":  # all connections would be one
        refused = "--connection-requests-per-second: --transport grpcio cannot tell the connections"
        with pytest.raises(StartupError, match=refused):
            async with run_server(config):
                raise AssertionError("it serves")
        return
    request = simple_request().SerializeToString()
    async with run_server(config), raw_client(address) as client, raw_client(address) as another:
        for each in (client, another):
            assert await each.unary("ModelInfer", request)
            for rpc, asked in (("ModelInfer", request), ("ServerMetadata", b"")):
                with pytest.raises(grpc.aio.AioRpcError, match="this connection is over its limit"):
                    await each.unary(rpc, asked)


async def test_socket_file_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    path = tmp_path / "grpc.sock"
    flags = ["--grpc-address", f"unix:{path}"]
    async with serve_process(tmp_path / "models", *flags) as server:
        server.process.kill()
        await server.process.wait()
        assert path.is_socket()
    async with serve_process(tmp_path / "models", *flags) as server:
        await ask_all(f"unix:{path}")
        assert not any("beyond loopback" in line for line in server.lines)


async def test_file_that_is_no_socket_is_never_replaced(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    path = tmp_path / "precious"
    path.write_text("kept")
    config = server_config(tmp_path / "models", grpc_address=f"unix:{path}")
    with pytest.raises(StartupError, match="a file that is no socket is there"):
        async with run_server(config):
            raise AssertionError("it serves")
    assert path.read_text() == "kept"


async def test_connection_without_calls_is_told_to_reconnect() -> None:
    async with serve_frontend(grpc_max_connection_idle_ms=50) as server:
        frames = await frames_until_the_end(server)
    assert GOAWAY in [kind for kind, _ in frames]


@pytest.mark.parametrize("rpc", ["ServerLive", "ModelInfer"])
async def test_headers_over_the_limit_are_refused_and_the_connection_goes_on(
    tmp_path: Path, rpc: str
) -> None:
    write_simple(tmp_path)
    request = simple_request().SerializeToString() if rpc == "ModelInfer" else b""
    async with (
        run_server(server_config(tmp_path, max_header_bytes=2048)) as server,
        server.client() as client,
    ):
        assert await client.unary(rpc, request, metadata=(("fits", "x" * 1000),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(rpc, request, metadata=(("large", "x" * 4000),))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await client.unary(rpc, request)


@pytest.mark.parametrize("rpc", ["ServerLive", "ModelInfer"])
@pytest.mark.parametrize("count", [0, 2])
async def test_unary_call_without_a_message_or_with_two(
    tmp_path: Path, transport: str, rpc: str, count: int
) -> None:
    write_simple(tmp_path)
    request = simple_request().SerializeToString() if rpc == "ModelInfer" else b""
    path = f"/inference.GRPCInferenceService/{rpc}"
    async with run_server(server_config(tmp_path)) as server:
        assert server.app.grpc is not None
        async with http2.connection(server.app.grpc.port) as connection:
            wrong = http2.data(1, http2.message(request) * count)
            right = http2.data(3, http2.message(request))
            await connection.send(START, http2.headers(1, path), wrong)
            await connection.send(http2.headers(3, path), right)
            received = b""
            while not (
                http2.trailers(received, 3)
                and (transport == "grpcio" or http2.trailers(received, 1))
            ):
                more = await connection.receive(30)
                assert more, received
                received += more
    assert http2.trailers(received, 3)["grpc-status"] == "0"
    if transport == "native":
        assert http2.trailers(received, 1)["grpc-status"] == "12"  # UNIMPLEMENTED


@pytest.mark.parametrize(
    ("protection", "text"),
    [
        ("nothing", "without TLS and without asking callers who they are"),
        ("keys", "beyond loopback, without TLS"),
        ("tls", "beyond loopback, without asking callers who they are"),
        ("both", ""),
    ],
)
async def test_listening_beyond_loopback_unprotected_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, protection: str, text: str
) -> None:
    write_simple(tmp_path / "models")
    settings: dict[str, object] = {"grpc_address": "0.0.0.0"}
    if protection in ("keys", "both"):
        keys = write_keys(tmp_path / "keys.json", key_entry("a", "k"))
        settings["api_keys_file"] = str(keys)
    if protection in ("tls", "both"):
        pair = Authority(tmp_path).issue("server")
        settings["grpc_use_ssl"] = True
        settings["grpc_server_cert"] = str(pair.certificate)
        settings["grpc_server_key"] = str(pair.key)
    async with run_server(server_config(tmp_path / "models", **settings)):
        warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [text in each for each in warnings] == ([True] if text else [])
    assert all(each.endswith(text) for each in warnings)
