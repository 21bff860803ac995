"""Listening sockets that outlive the servers which serve from them, as systemd holds them."""

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.support.fixture_models import FIXTURE_BACKENDS
from tests.support.run_server import ServerProcess

SIDES = ("grpc", "http", "metrics")
_ABOVE_ALL_FD = 100
_LAUNCH = """
import os, sys
given, *command = sys.argv[1:]
for place, fd in enumerate(given.split(",")):
    os.dup2(int(fd), 3 + place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *command])
"""


class HeldSockets:
    """One socket for each side, on loopback, until the end of the test."""

    def __init__(self, sides: Sequence[str] = SIDES) -> None:
        self._stack = ExitStack()
        self.sockets = {
            side: self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
            for side in sides
        }

    def __enter__(self) -> "HeldSockets":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def port(self, side: str) -> int:
        found: int = self.sockets[side].getsockname()[1]
        return found

    @asynccontextmanager
    async def start(
        self, repository: Path, *flags: str, names: str | None = None, **variables: str
    ) -> AsyncIterator[ServerProcess]:
        """Starts `penstock serve` with them; kills it at the end if it still runs."""
        command = ["-m", "penstock", "serve", str(repository), *flags]
        command += ["--backend-directory", str(FIXTURE_BACKENDS)]
        command += [part for side in SIDES for part in (f"--{side}-port", "0")]
        with ExitStack() as copies:
            fds = []
            for each in self.sockets.values():
                fd = fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, _ABOVE_ALL_FD)
                fds.append(fd)
                copies.callback(socket.socket(fileno=fd).close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", _LAUNCH, ",".join(map(str, fds)), *command),
                stderr=asyncio.subprocess.PIPE,
                pass_fds=fds,
                env=_environment(len(fds), names or ":".join(self.sockets), variables),
            )
        server = ServerProcess(process)
        try:
            yield server
        finally:
            if process.returncode is None:
                process.kill()
            await server.finish()


def _environment(count: int, names: str, variables: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names, **variables}
