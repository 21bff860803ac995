"""The server for tests: in this process, or in one of its own."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fixture_models import FIXTURE_BACKENDS
from tests.support.raw_grpc import RawClient, raw_client

from penstock.app import App
from penstock.config import ServerConfig
from penstock.lifecycle import State

_READY = re.compile(r"is ready: ([^\"]*)")


def server_config(repository: Path, **settings: object) -> ServerConfig:
    """Settings for a test: free ports, no grace, the fixture backend at hand."""
    values = {
        "model_repository": (repository,),
        "backend_directory": (FIXTURE_BACKENDS,),
        "grpc_port": 0,
        "http_port": 0,
        "metrics_port": 0,
        "transport": os.environ.get("PENSTOCK_TRANSPORT", "auto"),
        **settings,
    }
    return ServerConfig(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RunningServer:
    """A server in this process, READY."""

    app: App

    @property
    def grpc_address(self) -> str:
        assert self.app.grpc is not None
        return self.app.grpc.address

    @property
    def http_port(self) -> int:
        assert self.app.http is not None
        return self.app.http.port

    @property
    def metrics_port(self) -> int:
        assert self.app.metrics is not None
        return self.app.metrics.port

    def client(self) -> AbstractAsyncContextManager[RawClient]:
        """A client of bytes on a connection of its own."""
        return raw_client(self.grpc_address)


@asynccontextmanager
async def run_server(config: ServerConfig) -> AsyncIterator[RunningServer]:
    """Starts a server in this process, yields when it is READY, stops it at the end."""
    app = App(config)
    try:
        await app.start()
        await app.lifecycle.reached(State.READY)
        yield RunningServer(app)
    finally:
        if app.lifecycle.state is not State.STOPPED:
            await app.stop()


@dataclass
class ServerProcess:
    """`penstock serve` in a process of its own."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def next_line(self, fragment: str) -> str:
        """The next line of the log that has the fragment; fails if the process ends before."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode().rstrip("\n"):
            self.lines.append(line)
            if fragment in line:
                return line
        raise AssertionError("\n".join([f"ended before {fragment!r}:", *self.lines]))

    async def finish(self) -> int:
        """Waits for the end; the exit code."""
        assert self.process.stderr is not None
        rest = (await self.process.stderr.read()).decode()
        self.lines += rest.splitlines()
        return await self.process.wait()


@asynccontextmanager
async def start_process(
    repository: Path, *flags: str, fixture: bool = True
) -> AsyncIterator[ServerProcess]:
    """Starts `penstock serve`; kills it at the end if it still runs."""
    ports = [flag for side in ("grpc", "http", "metrics") for flag in (f"--{side}-port", "0")]
    plugins = ["--backend-directory", str(FIXTURE_BACKENDS)] if fixture else []
    command = ["-m", "penstock", "serve", str(repository), *ports, *plugins, *flags]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.PIPE
    )
    server = ServerProcess(process)
    try:
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await server.finish()


@asynccontextmanager
async def serve_process(
    repository: Path, *flags: str, fixture: bool = True
) -> AsyncIterator[ServerProcess]:
    """`start_process`, READY."""
    async with start_process(repository, *flags, fixture=fixture) as server:
        line = await server.next_line("is ready:")
        found = _READY.search(line)
        assert found, line
        pairs = (entry.split(" ") for entry in found[1].split(", "))
        server.addresses = {name: address for name, address in pairs}
        yield server
