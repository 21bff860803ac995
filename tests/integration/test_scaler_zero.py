"""From zero: a gateway holds requests, the scaler sees them, KEDA is told, a server comes."""

import asyncio
from pathlib import Path

import pytest
from tests.support.fixture_models import write_simple
from tests.support.http import ask, post
from tests.support.http_requests import simple_json
from tests.support.keda import Keda, keda_channel
from tests.support.run_server import run_server, server_config

from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway
from penstock.scaler import Scaler
from penstock.scaling.config import ScalerConfig

pytestmark = pytest.mark.any_transport


async def test_request_held_by_a_gateway_brings_the_fleet_back_from_zero(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    socket = f"unix:{tmp_path}/grpc.sock"
    gateway = FleetGateway(
        GatewayConfig(upstream=(socket,), http_port=0, metrics_port=0, upstream_probe_secs=0.02)
    )
    await gateway.start()
    assert gateway.metrics is not None
    config = ScalerConfig(
        replica=("no-such-name.invalid:8002",),
        gateway=(gateway.metrics.address,),
        grpc_port=0,
        interval_secs=0.02,
        min_replicas=0,
    )
    scaler = Scaler(config)
    try:
        await scaler.start()
        async with keda_channel(scaler.server.address) as channel:
            keda = Keda(channel, modelName="simple")
            stream = keda.stream()
            assert not (await stream.read()).result
            assert await keda.metric() == (0, 0.0)
            held = asyncio.create_task(
                post(gateway.http.port, "/v2/models/simple/infer", simple_json())
            )
            assert (await stream.read()).result
            assert await keda.is_active()
            assert await keda.metric() == (1, 1.0)
            assert await Keda(channel, metric="replicas").metric() == (1, 1.0)
            async with run_server(server_config(tmp_path / "models", grpc_address=socket)):
                assert (await held).status == 200
    finally:
        await scaler.stop()
        await gateway.stop()


async def test_gateway_tells_what_it_holds() -> None:
    gateway = FleetGateway(GatewayConfig(upstream=("127.0.0.1:1",), http_port=0, metrics_port=0))
    await gateway.start()
    try:
        assert gateway.metrics is not None
        text = (await ask(gateway.metrics.port, "/metrics")).body.decode()
    finally:
        await gateway.stop()
    assert "penstock_gateway_waiting_requests 0\n" in text
    assert "penstock_gateway_waiting_bytes 0\n" in text
    assert "penstock_gateway_usable_servers 0\n" in text
