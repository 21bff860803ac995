"""A server as a process of its own: started on free ports, stopped by SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from penstock.commands._failure import CommandError, one_line

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0

_READY = re.compile(r" is ready: .*\bgRPC (?P<grpc>[^, ]+).*\bmetrics (?P<metrics>[^, ]+)")
_LINE_BYTES = 1 << 20
_KEPT_LINES = 20


class ServerProcess:
    """`penstock serve`, logging JSON, in a process.

    Attributes:
        grpc: host:port of its gRPC; once started.
        metrics: host:port of its metrics; once started.
        started_in_s: seconds from the start of the process to READY.

    Threading: confined to the event loop.
    Lifecycle: start -> stop; kill at any time.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.grpc = ""
        self.metrics = ""
        self.started_in_s = 0.0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)

    async def start(self) -> None:
        """Returns once the server is READY.

        Raises:
            CommandError: it ended, or took too long.
        """
        began = time.monotonic()
        self._ready = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=_environment(), stderr=asyncio.subprocess.PIPE, limit=_LINE_BYTES
        )
        self._reader = asyncio.create_task(self._read_log(self._process))
        await asyncio.wait(
            {self._ready, self._reader},
            timeout=START_TIMEOUT_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self._ready.done():
            raise CommandError(f"the server did not start{self._last_words()}")
        self.started_in_s = time.monotonic() - began

    async def stop(self) -> None:
        """Asks it to end and waits until it has.

        Raises:
            CommandError: it did not end in an orderly way.
        """
        assert self._process is not None, "the server was not started"
        if self._process.returncode is None:
            self._process.terminate()
        try:
            code = await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            raise CommandError(f"the server did not stop in {STOP_TIMEOUT_S:g} s") from None
        if code != 0:
            await self.kill()  # the log to its end
            raise CommandError(f"the server ended with exit code {code}{self._last_words()}")

    async def kill(self) -> None:
        """Makes sure nothing of it is left."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            message = _message(line)
            self._last_lines.append(message)
            found = _READY.search(message)
            if found and self._ready is not None and not self._ready.done():
                self.grpc, self.metrics = found["grpc"], found["metrics"]
                self._ready.set_result(None)

    def _last_words(self) -> str:
        last = next((line for line in reversed(self._last_lines) if line.strip()), "")
        return f": {one_line(last)}" if last else ""


def serve_command(repository: Path | None, *settings: str) -> list[str]:
    """The command that serves a repository, or what settings say, as ServerProcess wants it."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    options = ["--log-format=json", "--shutdown-grace-secs=0"]
    place = [str(repository)] if repository else []
    return [sys.executable, "-m", "penstock", "serve", *place, *ports, *options, *settings]


def _environment() -> dict[str, str]:
    """Ours, without settings that are meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


def _message(line: bytes) -> str:
    """The message of a log line; a line that is no record, as it is."""
    text = line.decode("utf-8", "replace").rstrip()
    try:
        record = json.loads(text)
    except ValueError:
        return text
    return str(record.get("message", text)) if isinstance(record, dict) else text
