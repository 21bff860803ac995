"""Restarts under load on one host: sockets that somebody holds, or that are handed over."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from pathlib import Path

import pytest
from tests.support.client_load import STAYING, Load
from tests.support.fixture_models import write_blocked, write_model, write_simple
from tests.support.held_sockets import HeldSockets
from tests.support.http import ask, post
from tests.support.ports import reserved_port
from tests.support.run_server import ServerProcess, serve_process

pytestmark = pytest.mark.transport("native")  # grpcio takes over no socket

GRACE = ("--shutdown-grace-secs", "0.3")
RESTARTS = 3
READY = "/v2/health/ready"
WARM_UP = """model_warmup [{ name: "w" batch_size: 1 inputs {
  key: "INPUT0" value { data_type: TYPE_FP32 dims: [1] zero_data: true } } }]"""


def load_on(server: ServerProcess) -> Load:
    return Load(server.addresses["gRPC"], int(server.addresses["HTTP"].rsplit(":", 1)[1]))


@asynccontextmanager
async def successor_of(server: ServerProcess) -> AsyncIterator[int]:
    """Asks for a successor; its process number once it was started. It is ended at the end."""
    server.process.send_signal(signal.SIGUSR2)
    found = re.search(r"process (\d+) is to take over", await server.next_line("is to take over"))
    assert found
    pid = int(found[1])
    with os.fdopen(os.pidfd_open(pid)) as process:
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)


async def test_connections_wait_in_held_sockets_while_the_server_is_restarted(
    tmp_path: Path,
) -> None:
    write_simple(tmp_path)
    with HeldSockets() as held:
        async with Load(f"127.0.0.1:{held.port('grpc')}", held.port("http")) as load:
            for _ in range(RESTARTS):
                async with held.start(tmp_path, *GRACE) as server:
                    await server.next_line("is ready")
                    await load.go_on()
                    server.process.send_signal(signal.SIGTERM)
                    assert await server.finish() == 0
            async with held.start(tmp_path, *GRACE) as server:
                await server.next_line("is ready")
                await load.go_on()
                await load.stop()
    assert load.wrong == []


async def test_successor_takes_over_under_load(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path, *GRACE) as server, load_on(server) as load:
        await load.go_on()
        async with successor_of(server) as pid:
            await server.next_line(f"process {pid} has taken over")
            await load.go_on()
            await server.next_line("stopped")
            await load.go_on()
            port = server.addresses["metrics"].rsplit(":", 1)[1]
            metrics = (await ask(int(port), "/metrics")).body.decode()
            assert re.search(r"^penstock_ready 1$", metrics, re.MULTILINE)
            await load.stop()
        assert await server.finish() == 0
    assert load.wrong == []


async def test_successor_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path, *GRACE) as server, load_on(server) as load:
        write_model(tmp_path, "broken", kind="fail_load", message="no such luck")
        async with successor_of(server) as pid:
            await server.next_line(f"process {pid}, ended before it was ready: exit code 1")
        await load.go_on()
        await load.stop()
        assert load.wrong == []
        server.process.send_signal(signal.SIGTERM)
        assert await server.finish() == 0


async def test_end_that_is_asked_for_meanwhile_ends_the_successor_too(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    async with serve_process(tmp_path / "models", *GRACE) as server:
        write_blocked(tmp_path / "models", tmp_path / "gate", config=WARM_UP)
        async with successor_of(server):
            await server.next_line("loading models")
            server.process.send_signal(signal.SIGTERM)
            await server.next_line("interrupted while starting")
            (tmp_path / "gate").touch()
            assert await server.finish() == 0  # both: the successor has the same standard error


async def test_server_with_jobs_starts_no_successor(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    async with serve_process(tmp_path / "models", "--jobs-root", str(tmp_path)) as server:
        server.process.send_signal(signal.SIGUSR2)
        assert "--jobs-root: two" in await server.next_line("no successor is started")
        assert (await ask(int(server.addresses["HTTP"].rsplit(":", 1)[1]), READY)).status == 200


async def test_successor_that_would_lose_a_model_is_not_started(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path, "--model-control-mode", "explicit") as server:
        port = int(server.addresses["HTTP"].rsplit(":", 1)[1])
        assert (await post(port, "/v2/repository/models/simple/load", {})).status == 200
        server.process.send_signal(signal.SIGUSR2)
        assert "one does: 'simple'" in await server.next_line("no successor is started")
        assert (await ask(port, "/v2/models/simple/ready")).status == 200


async def test_grpcio_refuses_a_socket_and_a_successor(tmp_path: Path) -> None:
    write_simple(tmp_path)
    with HeldSockets() as held:
        async with held.start(tmp_path, "--transport", "grpcio") as server:
            assert await server.finish() == 1
            assert "--transport grpcio takes over no listening socket" in server.lines[-1]
    async with serve_process(tmp_path, "--transport", "grpcio") as server:
        server.process.send_signal(signal.SIGUSR2)
        assert "expected --transport native" in await server.next_line("no successor is started")


async def test_service_manager_is_told(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    with HeldSockets() as held, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        loop = asyncio.get_running_loop()
        variables = {"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "3600000000"}
        async with held.start(tmp_path / "models", *GRACE, **variables) as server:
            told = (await loop.sock_recv(heard, 1000)).decode().splitlines()
            assert told == [f"MAINPID={server.pid}", "READY=1", "STATUS=serving"]
            assert await loop.sock_recv(heard, 1000) == b"WATCHDOG=1"
            server.process.send_signal(signal.SIGTERM)
            assert (await loop.sock_recv(heard, 1000)).startswith(b"STOPPING=1\n")
            assert await server.finish() == 0


async def test_clients_that_balance_lose_nothing_in_a_rolling_restart(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    async with AsyncExitStack() as stack:
        # Each replica binds its own, as a pod does.
        ports = [stack.enter_context(reserved_port()) for _ in range(2)]
        both = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        replicas = [await stack.enter_async_context(replica(tmp_path, port)) for port in ports]
        load = await stack.enter_async_context(Load(both, balances=True))
        for number in range(2 * RESTARTS):
            await load.go_on()
            at = number % len(ports)
            replicas[at].process.send_signal(signal.SIGTERM)
            assert await replicas[at].finish() == 0
            replicas[at] = await stack.enter_async_context(replica(tmp_path, ports[at]))
            await until_in_use(replicas[at])
        await load.go_on()
        await load.stop()
    assert load.wrong == []


async def until_in_use(server: ServerProcess) -> None:
    """Returns when every client has found it."""
    port = int(server.addresses["metrics"].rsplit(":", 1)[1])
    found = None
    while found is None or int(found[1]) < STAYING:
        metrics = (await ask(port, "/metrics")).body.decode()
        found = re.search(r"^penstock_connections (\d+)$", metrics, re.MULTILINE)


async def test_http_connections_end_with_their_next_response_while_it_drains(
    tmp_path: Path,
) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path, "--shutdown-grace-secs", "3600") as server:
        port = int(server.addresses["HTTP"].rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"
        writer.write(request)
        assert b"connection: close" not in (await reader.readuntil(b"\r\n\r\n")).lower()
        assert await reader.readexactly(len(b'{"live": true}'))
        server.process.send_signal(signal.SIGTERM)
        await server.next_line("serving on for 3600 s")
        writer.write(request)
        assert b"connection: close" in (await reader.read()).lower()
        writer.close()


def replica(path: Path, port: int) -> AbstractAsyncContextManager[ServerProcess]:
    return serve_process(path / "models", *GRACE, "--grpc-port", str(port))
