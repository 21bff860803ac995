"""The native transport as the application holds it: its options, its drain, its end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.fake_transport import FakeTransport

from penstock.config import ServerConfig
from penstock.core import Caller
from penstock.errors import StartupError
from penstock.frontend.native import NativeTransport, is_native_chosen


class Gate:
    async def recognise(self, group: str, caller: Caller | None) -> None:
        """Nobody is asked."""


@dataclass
class Made:
    """A transport and what it made of its settings."""

    transport: NativeTransport
    cores: list[FakeTransport] = field(default_factory=list)

    @property
    def core(self) -> FakeTransport:
        return self.cores[0]


def make(path: Path, **settings: Any) -> Made:
    cores: list[FakeTransport] = []

    def core(**options: Any) -> FakeTransport:
        cores.append(FakeTransport(**options))
        return cores[0]

    address = {"grpc_address": f"unix:{path / 's.sock'}", **settings}
    config = ServerConfig(model_repository=(Path("unused"),), **address)
    return Made(NativeTransport(config, core, Gate()), cores)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    found = make(tmp_path)
    found.transport.bind()
    await found.transport.start()
    yield found
    found.core.close()


@pytest.mark.parametrize(
    ("choice", "is_built", "expected"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("native", True, True),
        ("grpcio", True, False),
        ("grpcio", False, False),
    ],
)
def test_native_is_chosen_where_it_was_built(
    choice: str, is_built: bool, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert is_native_chosen(choice, is_built=is_built) == expected
    fell_back = choice == "auto" and not is_built
    assert ("built without the native transport" in caplog.text) == fell_back


def test_native_is_refused_where_it_was_not_built() -> None:
    with pytest.raises(StartupError, match="--transport native: .* was built without it"):
        is_native_chosen("native", is_built=False)


def test_settings_are_handed_on(tmp_path: Path) -> None:
    made = make(
        tmp_path,
        grpc_io_threads=3,
        max_header_bytes=2048,
        max_buffered_bytes=0,
        grpc_max_connection_idle_ms=5,
        grpc_infer_response_compression_level="high",
    )
    options = made.core.options
    assert options["io_threads"] == 3
    assert options["max_header_bytes"] == 2048
    assert options["max_buffered_bytes"] == 0
    assert options["max_connection_idle_ms"] == 5
    assert options["response_compression_level"] == 3
    made.core.close()


async def test_stop_lets_handlers_end(made: Made) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, _context: Any) -> bytes:
        begun.set()
        await release.wait()
        return request

    handler = grpc.unary_unary_rpc_method_handler(wait)
    made.transport.server.add_registered_method_handlers("s.S", {"M": handler})
    call = made.core.call("/s.S/M").send(b"1", end=True)
    await begun.wait()
    stop = asyncio.create_task(made.transport.stop(60))
    await asyncio.wait({stop}, timeout=0)
    assert made.core.told[-1] == "drain"
    release.set()
    await stop
    assert call.written == [b"1"]
    assert made.core.told[-2:] == ["drain", "stop"]


async def test_stop_cancels_what_outlasts_its_time(made: Made) -> None:
    begun = asyncio.Event()

    async def wait(_request: bytes, _context: Any) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    handler = grpc.unary_unary_rpc_method_handler(wait)
    made.transport.server.add_registered_method_handlers("s.S", {"M": handler})
    call = made.core.call("/s.S/M").send(b"1", end=True)
    await begun.wait()
    await made.transport.stop(0.01)
    assert call.status is not None
    assert call.status[0] == grpc.StatusCode.CANCELLED.value[0]


async def test_stop_waits_until_connections_have_written_all(made: Made) -> None:
    made.core.connections = 1
    stop = asyncio.create_task(made.transport.stop(60))
    await asyncio.wait({stop}, timeout=0)
    assert not stop.done() and "stop" not in made.core.told
    made.core.close_connections()
    await stop
    assert made.core.told[-1] == "stop"


async def test_stop_lets_statuses_go_out_after_it_cancelled(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.core.connections = 1
    cancel_all = made.transport.server.cancel_all
    looks: list[list[Any]] = []

    async def cancel(timeout_s: float) -> None:
        await cancel_all(timeout_s)
        stats = made.core.stats

        def look() -> dict[str, int]:
            looks.append(list(made.core.told))
            made.core.connections = 0
            return stats()

        monkeypatch.setattr(made.core, "stats", look)

    monkeypatch.setattr(made.transport.server, "cancel_all", cancel)
    await made.transport.stop(0)
    assert looks and "stop" not in looks[0]


async def test_stop_ends_where_a_connection_or_a_thread_does_not(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    made.core.connections = 1
    made.core.has_ended = False
    await made.transport.stop(0)
    assert made.core.told[-1] == "stop"
    assert "a thread of it has not ended" in caplog.text


async def test_socket_file_is_removed_before_the_listener_is_closed(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = []
    monkeypatch.setattr(made.core, "drain", lambda: there.append((tmp_path / "s.sock").exists()))
    await made.transport.stop(0)
    assert there == [False]


async def test_socket_file_is_removed_at_the_end(made: Made, tmp_path: Path) -> None:
    assert (tmp_path / "s.sock").is_socket()
    assert made.transport.address == f"unix:{tmp_path / 's.sock'}"
    await made.transport.stop(0)
    assert not (tmp_path / "s.sock").exists()


async def test_stages_of_the_server_are_handed_on(made: Made) -> None:
    made.transport.set_loaded()
    made.transport.close_streams()
    assert made.core.told == ["listen", "start", "set_loaded", "close_streams"]
    await made.transport.stop(0)


def test_certificates_that_will_not_do_are_told_before_the_core_is_asked(tmp_path: Path) -> None:
    files = {"grpc_server_cert": str(tmp_path / "none"), "grpc_server_key": str(tmp_path / "none")}
    made = make(tmp_path, grpc_use_ssl=True, **files)
    with pytest.raises(StartupError, match="cannot read"):
        made.transport.bind()
    assert made.core.told == []
    made.core.close()
