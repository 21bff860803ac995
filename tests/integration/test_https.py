"""TLS and mutual TLS on the HTTP port, embedded and of `penstock gateway`, and changed files."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from tests.support.access_files import write_text
from tests.support.certificates import Authority, Pair
from tests.support.fixture_models import write_simple
from tests.support.http_requests import simple_json
from tests.support.run_server import run_server, server_config
from tests.support.triton_http import http_client, http_tensor

from penstock.config import ServerConfig
from penstock.errors import ConfigError, StartupError
from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway

SIMPLE = "/v2/models/simple/infer"


class Place:
    """Where a test has its files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        write_simple(directory / "models")
        self.authority = Authority(directory)
        self.server = self.authority.issue("server")

    def flags(self, *, mutual: bool = False) -> dict[str, object]:
        flags: dict[str, object] = {
            "http_use_ssl": True,
            "http_server_cert": str(self.server.certificate),
            "http_server_key": str(self.server.key),
        }
        if mutual:
            flags["http_use_ssl_mutual"] = True
            flags["http_root_cert"] = str(self.authority.certificate)
        return flags

    def client(self, shows: Pair | None = None, trusts: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=trusts or self.authority.certificate)
        if shows is not None:
            context.load_cert_chain(shows.certificate, shows.key)
        return context


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def listening(
    place: Place, where: str, *, mutual: bool = False, **settings: object
) -> AsyncIterator[int]:
    """The HTTPS port of a server, or of a gateway in front of one."""
    flags = place.flags(mutual=mutual) | settings
    if where == "embedded":
        async with run_server(server_config(place.directory / "models", **flags)) as server:
            yield server.http_port
        return
    async with run_server(server_config(place.directory / "models")) as server:
        config = GatewayConfig(upstream=(server.grpc_address,), http_port=0, **flags)  # type: ignore[arg-type]
        gateway = FleetGateway(config)
        await gateway.start()
        try:
            yield gateway.http.port
        finally:
            await gateway.stop()


async def infer(port: int, context: ssl.SSLContext | None) -> int:
    """The status of an inference; 0: the connection was refused."""
    body = json.dumps(simple_json(3)).encode()
    head = f"POST {SIMPLE} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        reply = await reader.read()
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return 0
    if not reply.startswith(b"HTTP/1.1 "):
        return 0
    assert b'"data":[3,' in reply
    return int(reply.split()[1])


pytestmark = pytest.mark.any_transport
BOTH = pytest.mark.parametrize("where", ["embedded", "standalone"])


@BOTH
async def test_client_that_trusts_the_authority_is_answered(place: Place, where: str) -> None:
    async with listening(place, where) as port:
        assert await infer(port, place.client()) == 200
        assert await infer(port, None) == 0, "plain text has no place here"


async def test_certificates_that_clients_cannot_trust_are_refused(
    place: Place, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    async with listening(place, "embedded") as port:
        assert await infer(port, place.client(trusts=other.certificate)) == 0
        place.authority.issue("server", days=-1)
        assert await infer(port, place.client()) == 0, "it has expired"
        place.authority.issue("server", host="elsewhere.example")
        assert await infer(port, place.client()) == 0, "it is another host's"
        place.authority.issue("server")
        assert await infer(port, place.client()) == 200


@BOTH
async def test_mutual_tls_wants_a_certificate_of_the_authority(
    place: Place, tmp_path: Path, where: str
) -> None:
    stranger = Authority(tmp_path, "stranger").issue("stranger-client")
    async with listening(place, where, mutual=True) as port:
        assert await infer(port, place.client(place.authority.issue("client"))) == 200
        assert await infer(port, place.client()) == 0, "no certificate"
        assert await infer(port, place.client(place.authority.issue("late", days=-1))) == 0
        assert await infer(port, place.client(stranger)) == 0


async def test_new_files_are_used_without_a_restart(place: Place, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    theirs, ours = other.issue("other-client"), place.authority.issue("client")
    async with listening(place, "embedded", mutual=True) as port:
        assert await infer(port, place.client(ours)) == 200
        assert await infer(port, place.client(theirs)) == 0
        trusted = place.authority.certificate.read_text()
        (tmp_path / "trusted.pem").write_text(trusted)
        write_text(place.authority.certificate, other.certificate.read_text())
        trusts = tmp_path / "trusted.pem"
        assert await infer(port, place.client(theirs, trusts)) == 200
        assert await infer(port, place.client(ours, trusts)) == 0, "its authority has gone"
        other.issue("server")
        assert await infer(port, place.client(theirs, other.certificate)) == 200


async def test_session_is_not_resumed_past_the_certificate(place: Place, tmp_path: Path) -> None:
    context = place.client(place.authority.issue("client"))
    async with listening(place, "embedded", mutual=True) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        made = writer.get_extra_info("ssl_object")
        assert made.version() == "TLSv1.3"
        assert made.session is None or not made.session.has_ticket
        writer.close()


async def test_broken_pair_leaves_the_old_one_in_use_and_is_told_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with listening(place, "embedded") as port:
        place.server.certificate.write_text("no certificate")
        for _ in range(3):
            assert await infer(port, place.client()) == 200
        assert caplog.text.count("the certificate in use stays in use") == 1
        place.authority.issue("server")
        assert await infer(port, place.client()) == 200
        assert "the certificate of the HTTP port was read anew" in caplog.text


async def test_files_that_will_not_do_stop_the_start(place: Place) -> None:
    place.server.key.write_text("no key")
    with pytest.raises(StartupError, match="are no pair"):
        async with listening(place, "embedded"):
            pass


async def test_client_that_does_not_shake_hands_holds_up_nobody(place: Place) -> None:
    async with listening(place, "embedded") as port:
        connected = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        assert await infer(port, place.client()) == 200
        for _, writer in connected:
            writer.close()


@BOTH
async def test_handshakes_count_as_connections_and_a_flood_of_them_is_bounded(
    place: Place, where: str
) -> None:
    async with listening(place, where, http_max_connections=4) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        while await infer(port, place.client()):  # until all of them are accepted
            pass
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            assert await reader.read() == b"", "one more is closed at once"
        writer.close()
        for _, each in silent:
            each.close()
        while not await infer(port, place.client()):  # until their end is noticed
            pass
        assert await infer(port, place.client()) == 200


async def test_server_that_stops_breaks_handshakes_off(place: Place) -> None:
    async with listening(place, "embedded") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await infer(port, place.client()) == 200, "the one before was accepted by then"
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()


async def test_mutual_tls_on_both_ports_serves_the_whole_of_http(place: Place) -> None:
    files = {
        "grpc_use_ssl": True,
        "grpc_use_ssl_mutual": True,
        "grpc_server_cert": str(place.server.certificate),
        "grpc_server_key": str(place.server.key),
        "grpc_root_cert": str(place.authority.certificate),
    }
    config = server_config(place.directory / "models", **files, **place.flags(mutual=True))
    async with run_server(config) as server:
        client = place.client(place.authority.issue("client"))
        assert await infer(server.http_port, client) == 200


@pytest.mark.parametrize("face", ["sync", "aio"])
async def test_tritonclient_speaks_https(place: Place, face: str) -> None:
    def ask(port: int) -> list[int]:
        options = (
            {"ssl": True, "ssl_options": {"ca_certs": str(place.authority.certificate)}}
            if face == "sync"
            else {"ssl": True, "ssl_context": place.client()}
        )
        with http_client(face, f"127.0.0.1:{port}", **options) as client:
            row = np.arange(16, dtype=np.int32).reshape(1, 16)
            inputs = [http_tensor(f"INPUT{i}", row, "INT32") for i in range(2)]
            found = client.infer("simple", inputs).as_numpy("OUTPUT0")
        return [int(each) for each in found.ravel()]

    async with listening(place, "embedded") as port:
        assert await asyncio.to_thread(ask, port) == [2 * i for i in range(16)]


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(model_repository=(Path("m"),), http_server_cert="c", http_use_ssl_mutual=True)
    assert set(caught.value.faults) == {
        "--http-server-cert: needs --http-use-ssl=true",
        "--http-use-ssl-mutual: needs --http-use-ssl=true",
        "--http-root-cert: needed to serve HTTP over TLS",
    }
    with pytest.raises(ConfigError, match="--http-server-key: needed to serve HTTP over TLS"):
        GatewayConfig(upstream=("a:1",), http_use_ssl=True, http_server_cert="c")
