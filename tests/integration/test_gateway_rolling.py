"""Three replicas behind `penstock gateway`, restarted in turn by SIGTERM, under full load."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.cli import started
from tests.support.fixture_models import write_simple
from tests.support.http import ask
from tests.support.http_requests import simple_json
from tests.support.run_server import ServerProcess, serve_process

CONNECTIONS = 32


@dataclass
class Load:
    """Connections that ask again as soon as they are answered, and check every answer.

    A connection that the gateway closes with its answer would be made anew; none is, for it is the
    replicas that come and go.
    """

    port: int
    answered: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    async def run(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        start = number
        while not self.is_over:
            start += CONNECTIONS
            try:
                await self._ask(reader, writer, start % 100_000)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.wrong[f"connection lost: {error!r}"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: int
    ) -> None:
        body = json.dumps(simple_json(start)).encode()
        head = "POST /v2/models/simple/infer HTTP/1.1\r\nHost: t\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        raw = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(raw.partition("content-length: ")[2].partition("\r\n")[0])
        answer = await reader.readexactly(length)
        self.answered += 1
        if not raw.startswith("http/1.1 200") or not is_right(answer, start):
            self.wrong[f"{raw.splitlines()[0]} {answer[:200]!r}"] += 1


def is_right(answer: bytes, start: int) -> bool:
    outputs = {each["name"]: each["data"] for each in json.loads(answer)["outputs"]}
    expected = list(range(start, start + 16))
    return bool(outputs["OUTPUT0"] == expected and outputs["OUTPUT1"] == expected)


@asynccontextmanager
async def replica(repository: Path, address: str) -> AsyncIterator[ServerProcess]:
    flags = ["--grpc-address", address, "--shutdown-grace-secs", "1"]
    async with serve_process(repository, *flags) as server:
        yield server


@asynccontextmanager
async def gateway(*addresses: str) -> AsyncIterator[tuple[int, int]]:
    """`penstock gateway` in a process of its own; its ports for HTTP and for metrics."""
    flags = ["--http-port", "0", "--metrics-port", "0", "--upstream-probe-secs", "0.1"]
    flags += ["--upstream", ",".join(addresses), "--shutdown-grace-secs", "0"]
    async with started("gateway", *flags) as process:
        assert process.stderr is not None
        while "is ready:" not in (line := (await process.stderr.readline()).decode()):
            assert line, "the gateway has ended"
        draining = asyncio.create_task(process.stderr.read())
        parts = line.rstrip().partition("is ready: ")[2].split(", ")
        http, metrics = (int(part.rpartition(":")[2]) for part in parts)
        yield http, metrics
        process.terminate()
        await draining
        assert await process.wait() == 0


async def usable(metrics_port: int) -> int:
    """How many servers take requests, as the gateway says."""
    text = (await ask(metrics_port, "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("penstock_gateway_usable")]
    return int(lines[0].split()[1])


async def restart_in_turn(repository: Path, addresses: list[str], seconds: float) -> Load:
    """Serves under load for so long, each replica restarted again and again; what came of it."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        port, metrics = await stack.enter_async_context(gateway(*addresses))
        serving = []
        for address in addresses:
            inner = await stack.enter_async_context(AsyncExitStack())
            serving.append((inner, await inner.enter_async_context(replica(repository, address))))
        load = Load(port)
        loads = [asyncio.create_task(load.run(number)) for number in range(CONNECTIONS)]
        end_s = loop.time() + seconds
        restarts = 0
        while loop.time() < end_s or restarts < len(addresses):
            at = restarts % len(addresses)
            inner, server = serving[at]
            before = load.answered
            server.process.send_signal(signal.SIGTERM)
            assert await server.finish() == 0, server.lines
            serving[at] = (
                inner,
                await inner.enter_async_context(replica(repository, addresses[at])),
            )
            restarts += 1
            async with asyncio.timeout(60):
                while await usable(metrics) < len(addresses) or load.answered == before:
                    await asyncio.wait(loads, timeout=0.05)
        load.is_over = True
        await asyncio.gather(*loads)
    print(f"{load.answered} answers, {restarts} restarts, {load.wrong}", file=sys.stderr)
    return load


@pytest.mark.lengthy
async def test_rolling_restart_of_three_replicas_fails_no_request(
    tmp_path: Path, transport: str
) -> None:
    write_simple(tmp_path / "models")
    addresses = [f"unix:{tmp_path}/{number}.sock" for number in range(3)]
    load = await restart_in_turn(tmp_path / "models", addresses, seconds=0)
    assert load.wrong == Counter()
    assert load.answered > 100


@pytest.mark.slow
async def test_five_minutes_of_rolling_restarts_fail_no_request(
    tmp_path: Path, transport: str
) -> None:
    write_simple(tmp_path / "models")
    addresses = [f"unix:{tmp_path}/{number}.sock" for number in range(3)]
    seconds = float(os.environ.get("PENSTOCK_ROLLING_SECONDS", "300"))
    load = await restart_in_turn(tmp_path / "models", addresses, seconds)
    assert load.wrong == Counter()
    assert load.answered > 1000
