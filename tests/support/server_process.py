"""`penstock serve` in a process of its own, for tests without an event loop."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.fixture_models import FIXTURE_BACKENDS

_READY = re.compile(r"is ready: gRPC (\S+), HTTP (\S+), metrics (\S+)")
_PATIENCE_S = 120.0


class Served:
    """A server's log as it grows, and its addresses, host:port each.

    Threading: `read` runs on a thread of its own; the rest is the test's.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.grpc = self.http = self.metrics = ""
        self.pid = 0
        self._ready_or_ended = threading.Event()

    def read(self, stream: IO[str]) -> None:
        """Takes every line, so that the server never waits for a full pipe."""
        for line in stream:
            self.log.append(line)
            if found := _READY.search(line):
                self.grpc, self.http, self.metrics = found.groups()
                self._ready_or_ended.set()
        self._ready_or_ended.set()

    def await_ready(self) -> None:
        """Returns when the addresses are there; fails if the server ended before."""
        came = self._ready_or_ended.wait(_PATIENCE_S)
        assert came and self.grpc, "".join(["not ready:\n", *self.log])


@contextmanager
def served(
    repository: Path, *flags: str, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Starts a server, yields when it is ready, ends it by SIGTERM and expects exit code 0.

    Args:
        repository: its directory of models.
        flags: of `penstock serve`.
        environment: variables beyond this process's.
    """
    ports = [part for side in ("grpc", "http", "metrics") for part in (f"--{side}-port", "0")]
    command = [sys.executable, "-m", "penstock", "serve", str(repository), *ports, *flags]
    command += ["--backend-directory", str(FIXTURE_BACKENDS), "--shutdown-grace-secs", "0"]
    server = Served()
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        server.pid = process.pid
        reader = threading.Thread(target=server.read, args=(process.stderr,))
        reader.start()
        try:
            server.await_ready()
            yield server
        finally:
            process.terminate()
            process.wait()
            reader.join()
    assert process.returncode == 0, "".join(server.log)
