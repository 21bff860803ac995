"""Three replicas behind `penstock gateway`, restarted in turn by SIGTERM, under load."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.support.fixture_models import write_simple
from tests.support.http_requests import simple_json
from tests.support.run_server import ServerProcess, serve_process

from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway

pytestmark = pytest.mark.slow

CONNECTIONS = 32
ROUNDS = 5
EXPECTED = list(range(1, 17))


class Load:
    """Connections that ask again as soon as they are answered, and check every answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = 0
        self.wrong: list[str] = []
        self._is_over = False

    async def run(self) -> None:
        body = json.dumps(simple_json()).encode()
        head = "POST /v2/models/simple/infer HTTP/1.1\r\nHost: t\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._is_over:
            writer.write(request)
            raw = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(raw.partition("content-length: ")[2].partition("\r\n")[0])
            answer = await reader.readexactly(length)
            self.answered += 1
            if not raw.startswith("http/1.1 200") or not is_right(answer):
                self.wrong.append(f"{raw.splitlines()[0]} {answer[:200]!r}")
        writer.close()

    def stop(self) -> None:
        self._is_over = True


def is_right(answer: bytes) -> bool:
    outputs = {each["name"]: each["data"] for each in json.loads(answer)["outputs"]}
    return bool(outputs["OUTPUT0"] == EXPECTED)


@asynccontextmanager
async def replica(repository: Path, address: str) -> AsyncIterator[ServerProcess]:
    flags = ["--grpc-address", address, "--shutdown-grace-secs", "1"]
    async with serve_process(repository, *flags) as server:
        yield server


async def test_no_request_fails(tmp_path: Path, transport: str) -> None:
    write_simple(tmp_path / "models")
    addresses = [f"unix:{tmp_path}/{number}.sock" for number in range(3)]
    gateway = FleetGateway(
        GatewayConfig(upstream=tuple(addresses), http_port=0, upstream_probe_secs=0.1)
    )
    await gateway.start()
    load = Load(gateway.http.port)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.stop)
        serving = {}
        for address in addresses:
            inner = await stack.enter_async_context(AsyncExitStack())
            serving[address] = (
                inner,
                await inner.enter_async_context(replica(tmp_path / "models", address)),
            )
        loads = [asyncio.create_task(load.run()) for _ in range(CONNECTIONS)]
        for number in range(ROUNDS * len(addresses)):
            address = addresses[number % len(addresses)]
            inner, server = serving[address]
            before = load.answered
            server.process.send_signal(signal.SIGTERM)
            assert await server.finish() == 0
            server = await inner.enter_async_context(replica(tmp_path / "models", address))
            serving[address] = (inner, server)
            at = addresses.index(address)
            async with asyncio.timeout(60):
                while not gateway.pool.replicas[at].is_ready or load.answered == before:
                    await asyncio.wait(loads, timeout=0.05)
        load.stop()
        await asyncio.gather(*loads)
    print(f"{transport}: {load.answered} answers", file=sys.stderr)
    assert load.wrong == []
    assert load.answered > 1000
