"""Restarts under load on one host: sockets that somebody holds, or that are handed over."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.support.client_load import Load
from tests.support.fixture_models import write_simple
from tests.support.held_sockets import HeldSockets
from tests.support.http import ask
from tests.support.run_server import ServerProcess, serve_process

pytestmark = pytest.mark.transport("native")

GRACE = ("--shutdown-grace-secs", "0.3")
RESTARTS = 3


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
