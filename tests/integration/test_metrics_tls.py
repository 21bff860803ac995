"""The metrics port over TLS and mutual TLS: a server's and a gateway's, and who scrapes it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.certificates import Authority, Pair
from tests.support.fixture_models import write_simple
from tests.support.http import ask
from tests.support.run_server import run_server, server_config

from penstock.config import ServerConfig
from penstock.errors import ConfigError
from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway

pytestmark = pytest.mark.any_transport
BOTH = pytest.mark.parametrize("where", ["server", "gateway"])


class Place:
    """Where a test has its files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        write_simple(directory / "models")
        self.authority = Authority(directory)
        self.pair = self.authority.issue("metrics")

    def flags(self, *, mutual: bool) -> dict[str, object]:
        flags: dict[str, object] = {
            "metrics_use_ssl": True,
            "metrics_server_cert": str(self.pair.certificate),
            "metrics_server_key": str(self.pair.key),
        }
        if mutual:
            flags |= {
                "metrics_use_ssl_mutual": True,
                "metrics_root_cert": str(self.authority.certificate),
            }
        return flags


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def metrics_of(place: Place, where: str, *, mutual: bool = False) -> AsyncIterator[int]:
    """The metrics port of a server, or of a gateway of none."""
    flags = place.flags(mutual=mutual)
    if where == "server":
        async with run_server(server_config(place.directory / "models", **flags)) as server:
            yield server.metrics_port
        return
    gateway = FleetGateway(
        GatewayConfig(upstream=("127.0.0.1:1",), http_port=0, metrics_port=0, **flags)  # type: ignore[arg-type]
    )
    await gateway.start()
    try:
        assert gateway.metrics is not None
        yield gateway.metrics.port
    finally:
        await gateway.stop()


async def scrape(port: int, trusts: Authority, shows: Pair | None = None) -> str:
    """The text of the metrics; "": the connection was refused."""
    context = ssl.create_default_context(cafile=trusts.certificate)
    if shows is not None:
        context.load_cert_chain(shows.certificate, shows.key)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        reply = await reader.read()
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return ""
    head, _, body = reply.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200") or not reply
    return body


@BOTH
async def test_metrics_are_read_over_tls_only(place: Place, where: str, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    async with metrics_of(place, where) as port:
        assert "process_resident_memory_bytes" in await scrape(port, place.authority)
        assert await scrape(port, other) == "", "whom it does not know the reader refuses"
        with pytest.raises((ConnectionError, ValueError)):  # no answer, and none that is HTTP
            await ask(port, "/metrics")


@BOTH
async def test_metrics_over_mutual_tls_want_a_certificate(place: Place, where: str) -> None:
    async with metrics_of(place, where, mutual=True) as port:
        assert await scrape(port, place.authority) == ""
        reader = place.authority.issue("prometheus")
        assert "process_resident_memory_bytes" in await scrape(port, place.authority, reader)


async def test_new_certificate_of_metrics_is_used_without_a_restart(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    other = Authority(tmp_path, "other")
    async with metrics_of(place, "gateway") as port:
        assert await scrape(port, place.authority)
        other.issue("metrics")
        assert await scrape(port, other)
    assert "the certificate of the metrics port was read anew" in caplog.text


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(model_repository=(Path("m"),), metrics_server_cert="c")
    assert caught.value.faults == ["--metrics-server-cert: needs --metrics-use-ssl=true"]
    with pytest.raises(ConfigError, match="--metrics-server-key: needed to serve metrics over TLS"):
        GatewayConfig(upstream=("a:1",), metrics_use_ssl=True, metrics_server_cert="c")
