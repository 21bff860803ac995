"""TLS and mutual TLS on the gRPC port: who gets in, and certificates that change meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.access_files import write_text
from tests.support.certificates import Authority, Pair
from tests.support.fixture_models import write_simple
from tests.support.run_server import RunningServer, run_server, server_config

from penstock.config import ServerConfig
from penstock.errors import StartupError
from penstock_client import AsyncClient, RetryPolicy, Tls, UnavailableError


@dataclass(frozen=True)
class Place:
    """Where a test's server has its files."""

    repository: Path
    authority: Authority
    server: Pair

    def config(self, *, mutual: bool = False, **settings: object) -> ServerConfig:
        values: dict[str, object] = {
            "grpc_use_ssl": True,
            "grpc_server_cert": str(self.server.certificate),
            "grpc_server_key": str(self.server.key),
        }
        if mutual:
            values["grpc_use_ssl_mutual"] = True
            values["grpc_root_cert"] = str(self.authority.certificate)
        return server_config(self.repository, **{**values, **settings})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_simple(tmp_path / "models")
    authority = Authority(tmp_path)
    return Place(tmp_path / "models", authority, authority.issue("server"))


async def is_let_in(server: RunningServer, tls: Tls | None) -> bool:
    """Whether a fresh connection with these certificates comes in."""
    once = RetryPolicy(max_attempts=1)
    own = (("grpc.use_local_subchannel_pool", 1),)
    try:
        async with AsyncClient(
            server.grpc_address, tls=tls, retry=once, channel_options=own
        ) as client:
            return bool((await client.server_metadata()).name)
    except UnavailableError:
        return False


async def test_client_that_trusts_the_authority_comes_in(place: Place) -> None:
    async with run_server(place.config()) as server:
        assert await is_let_in(server, Tls(root_ca=place.authority.certificate))
        assert not await is_let_in(server, None), "plain text has no place here"


async def test_client_refuses_a_server_it_cannot_trust(place: Place, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    async with run_server(place.config()) as server:
        assert not await is_let_in(server, Tls(root_ca=other.certificate))


@pytest.mark.parametrize(("host", "days"), [("elsewhere.example", 1), ("127.0.0.1", -1)])
async def test_wrong_host_and_expired_certificate_are_refused_by_clients(
    place: Place, host: str, days: int
) -> None:
    place.authority.issue("server", host=host, days=days)
    async with run_server(place.config()) as server:
        assert not await is_let_in(server, Tls(root_ca=place.authority.certificate))


async def test_server_name_of_the_client_replaces_the_host(place: Place) -> None:
    place.authority.issue("server", host="elsewhere.example")
    tls = Tls(root_ca=place.authority.certificate, server_name="elsewhere.example")
    async with run_server(place.config()) as server:
        assert await is_let_in(server, tls)


async def test_mutual_tls_wants_a_certificate_of_the_authority(
    place: Place, tmp_path: Path
) -> None:
    roots = place.authority.certificate

    def tls(pair: Pair) -> Tls:
        return Tls(roots, pair.certificate, pair.key)

    async with run_server(place.config(mutual=True)) as server:
        assert await is_let_in(server, tls(place.authority.issue("client")))
        assert not await is_let_in(server, Tls(roots)), "no certificate"
        assert not await is_let_in(server, tls(place.authority.issue("late", days=-1)))
        stranger = Authority(tmp_path, "stranger").issue("stranger-client")
        assert not await is_let_in(server, tls(stranger))


async def test_new_certificate_is_used_without_a_restart(place: Place, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    async with run_server(place.config()) as server:
        assert await is_let_in(server, Tls(place.authority.certificate))
        other.issue("server")
        assert await is_let_in(server, Tls(other.certificate))
        assert not await is_let_in(server, Tls(place.authority.certificate))


async def test_new_authority_of_clients_is_used_without_a_restart(
    place: Place, tmp_path: Path
) -> None:
    client = Authority(tmp_path, "other").issue("client")
    tls = Tls(place.authority.certificate, client.certificate, client.key)
    async with run_server(place.config(mutual=True)) as server:
        roots = place.authority.certificate.read_bytes()
        assert not await is_let_in(server, tls)
        added = roots + (tmp_path / "other.pem").read_bytes()
        write_text(Path(server.app.config.grpc_root_cert), added.decode())
        assert await is_let_in(server, Tls(roots, client.certificate, client.key))


async def test_broken_pair_leaves_the_old_one_in_use_and_is_told_once(
    place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    log = ""

    def logged() -> str:
        """What Python and the core have written."""
        nonlocal log
        log += capfd.readouterr().err
        return caplog.text + log

    tls = Tls(place.authority.certificate)
    async with run_server(place.config()) as server:
        place.server.certificate.write_text("no certificate")
        for _ in range(3):
            assert await is_let_in(server, tls)
        assert logged().count("the certificate in use stays in use") == 1
        place.server.certificate.unlink()
        assert await is_let_in(server, tls)
        place.authority.issue("server")
        assert await is_let_in(server, tls)
        assert "was read anew" in logged()


async def test_established_connection_outlives_a_change(place: Place) -> None:
    async with (
        run_server(place.config()) as server,
        AsyncClient(server.grpc_address, tls=Tls(place.authority.certificate)) as client,
    ):
        await client.server_metadata()
        place.authority.issue("server")
        calls = (client.server_metadata() for _ in range(10))
        assert len(await asyncio.gather(*calls)) == 10


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("missing", "cannot read "),
        ("other key", "are no pair: key values mismatch"),
        ("no pem", "are no pair: "),
        ("roots", "holds no certificates"),
    ],
)
async def test_files_that_will_not_do_stop_the_start(place: Place, change: str, fault: str) -> None:
    changes: dict[str, Callable[[], object]] = {
        "missing": lambda: place.server.key.unlink(),
        "other key": lambda: place.authority.issue("other").key.replace(place.server.key),
        "no pem": lambda: place.server.certificate.write_text("no certificate"),
        "roots": lambda: place.authority.certificate.write_text("none"),
    }
    changes[change]()
    with pytest.raises(StartupError) as caught:
        async with run_server(place.config(mutual=True)):
            raise AssertionError("it serves")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
