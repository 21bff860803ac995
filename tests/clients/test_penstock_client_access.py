"""penstock_client and the command line against a server that asks who calls."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.access_files import key_entry, write_keys
from tests.support.certificates import Authority
from tests.support.cli import penstock
from tests.support.fixture_models import write_simple
from tests.support.server_process import served

from penstock_client import AsyncClient, Client, Tls, UnauthenticatedError, UnavailableError

INPUTS: dict[str, Any] = {
    "INPUT0": np.zeros((1, 16), np.int32),
    "INPUT1": np.ones((1, 16), np.int32),
}


@dataclass(frozen=True)
class Guarded:
    """A server over mutual TLS with keys, and what a client needs."""

    url: str
    tls: Tls
    flags: tuple[str, ...]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    write_simple(place / "models")
    authority = Authority(place)
    server, own = authority.issue("server"), authority.issue("own")
    keys = write_keys(
        place / "keys.json",
        key_entry("all", "good-key"),
        key_entry("slow", "slow-key", requests_per_second=5, burst=1),
    )
    flags = (
        "--grpc-use-ssl=true",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={server.certificate}",
        f"--grpc-server-key={server.key}",
        f"--grpc-root-cert={authority.certificate}",
        f"--api-keys-file={keys}",
        "--grpc-restricted-protocol=model-repository:admin=s3cret",
    )
    options = (
        *("--root-ca", str(authority.certificate)),
        *("--client-cert", str(own.certificate), "--client-key", str(own.key)),
    )
    tls = Tls(authority.certificate, own.certificate, own.key)
    with served(place / "models", *flags) as running:
        yield Guarded(running.grpc, tls, (*options, "--url", running.grpc))


def test_client_with_certificate_and_key_comes_in(guarded: Guarded) -> None:
    with Client(guarded.url, tls=guarded.tls, token="good-key") as client:
        assert client.infer("simple", INPUTS)["OUTPUT0"].sum() == 16
    with Client(guarded.url, tls=guarded.tls) as client, pytest.raises(UnauthenticatedError):
        client.infer("simple", INPUTS)


async def test_asyncio_client_likewise(guarded: Guarded) -> None:
    async with AsyncClient(guarded.url, tls=guarded.tls, token="good-key") as client:
        result = await client.infer("simple", INPUTS)
    assert result["OUTPUT1"].sum() == -16


def test_rate_limit_is_waited_for_as_the_server_says(guarded: Guarded) -> None:
    with Client(guarded.url, tls=guarded.tls, token="slow-key") as client:
        # One at once, five a second: without waiting the second is refused, RESOURCE_EXHAUSTED.
        sums = [client.infer("simple", INPUTS)["OUTPUT0"].sum() for _ in range(3)]
    assert sums == [16, 16, 16]


def test_headers_open_a_restricted_group(guarded: Guarded) -> None:
    headers = {"triton-grpc-protocol-admin": "s3cret"}
    with Client(guarded.url, tls=guarded.tls, token="good-key", headers=headers) as client:
        assert client.repository_index()[0].name == "simple"
    with Client(guarded.url, tls=guarded.tls, token="good-key") as client:
        with pytest.raises(UnavailableError, match="This protocol is restricted"):
            client.repository_index()


async def test_command_line_takes_key_from_environment_or_file(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = ("models", "metadata", "simple", *guarded.flags)
    refused = await penstock(*metadata)
    assert (refused.code, "x-api-key" in refused.err) == (1, True)
    file = tmp_path / "key"
    file.write_text("good-key\n")
    assert (await penstock(*metadata, "--token-file", str(file))).code == 0
    monkeypatch.setenv("PENSTOCK_TOKEN", "good-key")
    assert (await penstock(*metadata)).code == 0
    np.savez(tmp_path / "in.npz", **INPUTS)
    result = await penstock("infer", "simple", str(tmp_path / "in.npz"), *guarded.flags)
    assert (result.code, result.err) == (0, "")


async def test_command_line_sends_headers(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "good-key")
    index = ("models", "index", *guarded.flags)
    assert "This protocol is restricted" in (await penstock(*index)).err
    header = ("--header", "triton-grpc-protocol-admin=s3cret")
    assert (await penstock(*index, *header)).code == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tls": Tls(root_ca="/nonexistent.pem")}, "cannot read /nonexistent.pem"),
        ({"token": ""}, "token: expected printable ASCII"),
        ({"token": "two words"}, "token: expected printable ASCII"),
        ({"token": "line\n"}, "token: expected printable ASCII"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Client("localhost:1", **options)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="a certificate needs its key"):
        Tls(certificate=b"c")


async def test_token_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = await penstock("models", "index", "--token-file", str(tmp_path / "none"))
    assert result.code == 1
    assert "cannot read" in result.err
    assert len(result.err.splitlines()) == 1
