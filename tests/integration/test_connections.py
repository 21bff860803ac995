"""What becomes of a connection by itself, and from where there can be one."""

import asyncio
from pathlib import Path

import psutil
import pytest
from tests.support import raw_http2 as http2
from tests.support.access_files import key_entry, write_keys
from tests.support.certificates import Authority
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.fixture_models import write_simple
from tests.support.run_server import run_server, serve_process, server_config

GOAWAY = 7
START = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0)


async def frames_until_the_end(server: FakeServer, *sent: bytes) -> list[tuple[int, bytes]]:
    """Kind and payload of each frame that a client gets which sends this and then says nothing."""
    frames = []
    async with http2.connection(server.transport.port) as connection:
        await connection.send(START, *sent)
        try:
            async with asyncio.timeout(120):
                while True:
                    header = await connection.reader.readexactly(9)
                    payload = await connection.reader.readexactly(int.from_bytes(header[:3]))
                    frames.append((header[3], payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            return frames


@pytest.mark.lengthy
async def test_connection_of_age_is_told_to_reconnect() -> None:
    async with serve_frontend(grpc_max_connection_age_ms=50) as server:
        frames = await frames_until_the_end(server)
    # The last stream, then the code: NO_ERROR.
    assert [payload for kind, payload in frames if kind == GOAWAY and not any(payload[4:8])]


@pytest.mark.lengthy
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
