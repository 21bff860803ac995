"""`penstock gateway` calls its servers over TLS: whom it trusts, and what it shows."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.access_files import write_text
from tests.support.certificates import Authority, Pair
from tests.support.fixture_models import write_simple
from tests.support.http import post
from tests.support.http_requests import outputs, simple_json
from tests.support.run_server import run_server, server_config

from penstock.config import ServerConfig
from penstock.errors import StartupError
from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway

pytestmark = pytest.mark.any_transport


def mutual(directory: Path, authority: Authority, server: Pair) -> ServerConfig:
    """A server that wants a certificate of the authority."""
    write_simple(directory / "models")
    return server_config(
        directory / "models",
        grpc_use_ssl=True,
        grpc_use_ssl_mutual=True,
        grpc_server_cert=str(server.certificate),
        grpc_server_key=str(server.key),
        grpc_root_cert=str(authority.certificate),
    )


async def status(address: str, trusts: Authority, shows: Pair | None) -> int:
    """Of an inference through a gateway with these certificates."""
    own: dict[str, str] = {}
    if shows is not None:
        own = {
            "upstream_client_cert": str(shows.certificate),
            "upstream_client_key": str(shows.key),
        }
    gateway = FleetGateway(
        GatewayConfig(
            upstream=(address,),
            upstream_use_ssl=True,
            upstream_root_cert=str(trusts.certificate),
            max_waiting_secs=0.2,
            http_port=0,
            **own,  # type: ignore[arg-type]
        )
    )
    await gateway.start()
    try:
        reply = await post(gateway.http.port, "/v2/models/simple/infer", simple_json(5))
    finally:
        await gateway.stop()
    if reply.status == 200:
        assert outputs(reply)["OUTPUT0"][0] == 5
    return reply.status


async def test_gateway_and_server_know_each_other_by_their_certificates(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    config = mutual(tmp_path, authority, authority.issue("server"))
    gateway = authority.issue("gateway")
    async with run_server(config) as server:
        address = server.grpc_address
        assert await status(address, authority, gateway) == 200
        assert await status(address, other, gateway) == 503, "a server of another authority"
        assert await status(address, authority, None) == 503, "no certificate of its own"
        assert await status(address, authority, other.issue("stranger")) == 503
        assert await status(address, authority, authority.issue("late", days=-1)) == 503
        authority.issue("server", days=-1)
        assert await status(address, authority, gateway) == 503, "the server's has expired"


async def test_files_that_change_are_used_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    config = mutual(tmp_path, authority, authority.issue("server"))
    shows = other.issue("gateway")  # a stranger's, at first
    async with run_server(config) as server:
        gateway = FleetGateway(
            GatewayConfig(
                upstream=(server.grpc_address,),
                upstream_use_ssl=True,
                upstream_root_cert=str(authority.certificate),
                upstream_client_cert=str(shows.certificate),
                upstream_client_key=str(shows.key),
                upstream_probe_secs=0.05,
                max_waiting_secs=60,
                http_port=0,
            )
        )
        await gateway.start()
        try:
            assert not gateway.pool.is_ready
            waiting = asyncio.create_task(
                post(gateway.http.port, "/v2/models/simple/infer", simple_json(5))
            )
            await until(lambda: gateway.pool.waiting == 1)
            write_text(shows.key, "no key")
            await until(lambda: "are no pair" in caplog.text)
            authority.issue("gateway")
            assert (await waiting).status == 200
            assert "read anew after a change" in caplog.text
        finally:
            await gateway.stop()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_pair_that_does_not_fit_stops_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, two = authority.issue("one"), authority.issue("two")
    with pytest.raises(StartupError, match="are no pair"):
        FleetGateway(
            GatewayConfig(
                upstream=("a:1",),
                upstream_use_ssl=True,
                upstream_client_cert=str(one.certificate),
                upstream_client_key=str(two.key),
            )
        )


async def test_certificate_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot read .*nowhere"):
        FleetGateway(
            GatewayConfig(
                upstream=("a:1",),
                upstream_use_ssl=True,
                upstream_root_cert=str(tmp_path / "nowhere"),
            )
        )
