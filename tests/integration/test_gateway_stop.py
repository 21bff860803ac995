"""How `penstock gateway` ends: no new connections, what is under way has its time, then 503."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.http import ask, post
from tritonclient.grpc import service_pb2 as wire

from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway
from penstock_gateway.upstream import Call

pytestmark = pytest.mark.any_transport

INFER = "/v2/models/m/infer"


class Server:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.arrived, self.gate = asyncio.Event(), asyncio.Event()

    async def unary(self, call: Call, request: bytes) -> bytes:
        self.arrived.set()
        await self.gate.wait()
        return bytes(wire.ModelInferResponse(model_name="m").SerializeToString())


@asynccontextmanager
async def serving(tmp_path: Path, server: Server, timeout_s: float) -> AsyncIterator[FleetGateway]:
    config = GatewayConfig(
        upstream=(f"unix:{tmp_path}/nobody",), http_port=0, exit_timeout_secs=timeout_s
    )
    gateway = FleetGateway(config)
    gateway.pool.unary = server.unary  # type: ignore[method-assign]
    await gateway.start()
    try:
        yield gateway
    finally:
        server.gate.set()
        await gateway.stop()


async def until_closed(gateway: FleetGateway) -> None:
    """Until nothing listens. To knock until nobody opens is a race that asyncio loses (3.11)."""
    server = gateway.http._server
    assert server is not None
    async with asyncio.timeout(30):
        while any(each.is_serving() for each in server.servers):
            turn = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(turn.set_result, None)
            await turn


async def test_request_under_way_is_finished_and_no_connection_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path, server := Server(), 30) as gateway:
        held = asyncio.create_task(post(gateway.http.port, INFER, {"inputs": []}))
        await server.arrived.wait()
        stopping = asyncio.create_task(gateway.stop())
        await until_closed(gateway)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gateway.http.port)
        assert not held.done() and not stopping.done()
        server.gate.set()
        reply = await held
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        await stopping


async def test_request_that_takes_too_long_is_503(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, server := Server(), 0) as gateway:
        held = asyncio.create_task(post(gateway.http.port, INFER, {"inputs": []}))
        await server.arrived.wait()
        await gateway.stop()
        reply = await held
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json == {"error": "the gateway is stopping, and did not finish in time"}
    assert "Exception in ASGI application" not in caplog.text


async def test_withdrawn_gateway_sends_its_clients_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path, Server(), 30) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http.port)
        request = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"
        writer.write(request)
        async with asyncio.timeout(30):
            assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            stopping = asyncio.create_task(gateway.stop(grace_s=0.2))
            while (await ask(gateway.http.port, "/v2/health/ready")).status == 200:
                pass
            writer.write(request)
            assert b"connection: close" in await reader.read()
            await stopping
        writer.close()
