"""Bearer tokens on the wire: a key set from a file or a URL, and tokens that are no good."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.access_files import key_entry, write_keys, write_text
from tests.support.fixture_models import write_simple
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, KeyServer, key_server, key_set
from tests.support.raw_grpc import RawClient
from tests.support.requests import simple_request
from tests.support.run_server import RunningServer, run_server, server_config

from penstock.config import ServerConfig
from penstock.errors import StartupError

REQUEST = simple_request().SerializeToString()
UNKNOWN = "the token names no key that this server knows"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path / "models")
    return tmp_path / "models"


def config(repository: Path, jwks: str, **settings: object) -> ServerConfig:
    trust = {"jwks": jwks, "jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,)}
    return server_config(repository, **{**trust, "access_reload_secs": 0.02, **settings})


async def ask(client: RawClient, token: str, rpc: str = "ModelInfer") -> tuple[str, str]:
    """Code and text of a call with the token."""
    metadata = (("authorization", f"Bearer {token}"),)
    try:
        await client.unary(rpc, REQUEST if rpc == "ModelInfer" else b"", metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def keys(issuer: Issuer) -> AsyncIterator[KeyServer]:
    async with key_server(issuer) as server:
        yield server


@pytest.fixture
async def server(repository: Path, keys: KeyServer) -> AsyncIterator[RunningServer]:
    async with run_server(config(repository, keys.url)) as started:
        yield started


async def test_good_token_comes_in_and_opens_its_groups(
    server: RunningServer, issuer: Issuer, keys: KeyServer
) -> None:
    token = issuer.token()
    async with server.client() as client:
        for _ in range(5):
            assert await ask(client, token) == ("OK", "")
        assert await ask(client, token, "RepositoryIndex") == (
            "PERMISSION_DENIED",
            "token of 'alice' may not call the group 'model-repository' of this server",
        )
    assert keys.asked == 1


async def test_junk_tokens_use_up_their_connections_verifications(
    server: RunningServer, issuer: Issuer
) -> None:
    async with server.client() as client, server.client() as other:
        outcomes: list[tuple[str, str]] = []
        while not any(code == "RESOURCE_EXHAUSTED" for code, _ in outcomes):
            assert len(outcomes) < 10_000
            junk = [issuer.token(exp=1, jti=f"{len(outcomes)}.{i}") for i in range(50)]
            outcomes += await asyncio.gather(*(ask(client, token) for token in junk))
        assert outcomes[0][0] == "UNAUTHENTICATED"
        (text,) = {text.rpartition(" in ")[0] for code, text in outcomes if code[0] == "R"}
        assert text == "this connection brings too many tokens that are not good; try again"
        assert await ask(other, issuer.token()) == ("OK", "")


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
async def test_other_allowed_algorithms_verify(
    tmp_path: Path, repository: Path, algorithm: str
) -> None:
    issuer = Issuer(algorithm=algorithm)
    file = write_text(tmp_path / "jwks.json", key_set(issuer))
    async with run_server(config(repository, str(file))) as server, server.client() as client:
        assert await ask(client, issuer.token()) == ("OK", "")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"exp": 1}, "the token has expired"),
        ({"nbf": 4102444800}, "the token is not valid yet"),
        ({"iss": "https://other.example"}, "the token's issuer is not the one"),
        ({"aud": "another-server"}, "the token is not meant for this server"),
        ({"exp": None}, "the token lacks a claim"),
        ({"sub": None}, "the token lacks a claim"),
        ({"aud": None}, "the token lacks a claim"),
        ({"sub": "x" * 200}, "the token's 'sub' is not"),
        ({"sub": 7}, "the token is malformed"),
        ({"exp": 10**400}, "the token is malformed"),
        ({"exp": "soon"}, "the token is malformed"),
    ],
)
async def test_token_with_wrong_claims_is_unauthenticated(
    server: RunningServer, issuer: Issuer, changes: dict[str, Any], text: str
) -> None:
    async with server.client() as client:
        for _ in range(2):  # the second time from what is remembered
            code, details = await ask(client, issuer.token(**changes))
            assert code == "UNAUTHENTICATED"
            assert text in details


async def test_forged_tokens_are_unauthenticated(server: RunningServer, issuer: Issuer) -> None:
    import jwt

    claims = {"sub": "a", "iss": ISSUER, "aud": AUDIENCE, "exp": 4102444800}
    kid = {"kid": "one"}
    public = str(issuer.jwk["x"])
    head, body, signature = issuer.token().split(".")
    cases = {
        Issuer().token(): "the token's signature is wrong",
        f"{head}.{body}.{signature[:-8]}AAAAAAAA": "the token's signature is wrong",
        jwt.encode(claims, "", "none", headers=kid): "the token's algorithm is not one of",
        jwt.encode(claims, public * 2, "HS256", headers=kid): "the token's algorithm is not one of",
        "a.b.c": "the token is malformed",
        "no-token-at-all": "the key or token is not known to this server",
    }
    async with server.client() as client:
        for token, text in cases.items():
            code, details = await ask(client, token)
            assert code == "UNAUTHENTICATED", token
            assert text in details


async def test_key_and_token_live_beside_each_other(
    tmp_path: Path, repository: Path, keys: KeyServer, issuer: Issuer
) -> None:
    file = write_keys(tmp_path / "keys.json", key_entry("user", "the-key"))
    settings = config(repository, keys.url, api_keys_file=str(file))
    async with run_server(settings) as server, server.client() as client:
        assert await ask(client, "the-key") == ("OK", "")
        assert await ask(client, issuer.token()) == ("OK", "")


async def test_unknown_key_fetches_the_set_anew_but_not_for_every_token(
    server: RunningServer, keys: KeyServer, issuer: Issuer
) -> None:
    async with server.client() as client:
        for _ in range(20):
            assert await ask(client, Issuer("stranger").token()) == ("UNAUTHENTICATED", UNKNOWN)
    assert keys.asked <= 2


async def test_set_that_is_down_at_the_start_is_unavailable_and_then_fetched(
    repository: Path, keys: KeyServer, issuer: Issuer
) -> None:
    keys.serve("", "503 Service Unavailable")
    async with (
        run_server(config(repository, keys.url, jwks_refresh_secs=0.05)) as server,
        server.client() as client,
    ):
        code, text = await ask(client, issuer.token())
        assert (code, "tokens cannot be verified now" in text) == ("UNAVAILABLE", True)
        keys.serve(key_set(issuer))
        async with asyncio.timeout(60):
            while await ask(client, issuer.token()) != ("OK", ""):
                pass


async def test_set_that_does_not_answer_holds_up_neither_start_nor_keys_nor_stop(
    tmp_path: Path, repository: Path, keys: KeyServer, issuer: Issuer
) -> None:
    keys.may_answer.clear()
    file = write_keys(tmp_path / "keys.json", key_entry("user", "the-key"))
    settings = config(repository, keys.url, api_keys_file=str(file))
    async with run_server(settings) as server, server.client() as client:
        assert await ask(client, "the-key") == ("OK", "")
        waiting = asyncio.create_task(ask(client, issuer.token()))
        assert await ask(client, "the-key") == ("OK", "")
        keys.may_answer.set()
        assert await waiting == ("OK", "")
        keys.may_answer.clear()


async def test_last_good_set_serves_on_while_the_url_is_down(
    repository: Path, keys: KeyServer, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        run_server(config(repository, keys.url, jwks_refresh_secs=0.02)) as server,
        server.client() as client,
    ):
        for answer in ("no keys", "", '{"keys": []}', "[" * 100_000):
            keys.serve(answer)
            before = keys.asked
            async with asyncio.timeout(60):
                while keys.asked < before + 3:
                    assert await ask(client, issuer.token()) == ("OK", "")
        keys.serve("", "302 Found", "Location: http://127.0.0.1:1/")
        assert await ask(client, issuer.token()) == ("OK", "")
    assert caplog.text.count("those at hand stay") == 1


async def test_withdrawn_key_ends_the_tokens_it_signed(
    tmp_path: Path, repository: Path, issuer: Issuer
) -> None:
    file = write_text(tmp_path / "jwks.json", key_set(issuer))
    other = Issuer("two")
    token = issuer.token()
    async with run_server(config(repository, str(file))) as server, server.client() as client:
        assert await ask(client, token) == ("OK", "")
        write_text(file, key_set(other))
        async with asyncio.timeout(60):
            while await ask(client, token) == ("OK", ""):
                pass
        assert await ask(client, token) == (
            "UNAUTHENTICATED",
            "the token names no key that this server knows",
        )
        assert await ask(client, other.token()) == ("OK", "")


async def test_tokens_of_one_subject_share_its_rate(
    repository: Path, keys: KeyServer, issuer: Issuer
) -> None:
    settings = config(repository, keys.url, key_requests_per_second=0.01, key_request_burst=2)
    async with run_server(settings) as server, server.client() as client:
        assert await ask(client, issuer.token(jti="1")) == ("OK", "")
        assert await ask(client, issuer.token(jti="2")) == ("OK", "")
        code, text = await ask(client, issuer.token(jti="3"))
        assert code == "RESOURCE_EXHAUSTED"
        assert "token of 'alice' is over its limit of 0.01 calls per second" in text
        assert await ask(client, issuer.token("bob")) == ("OK", "")


async def test_many_calls_with_one_new_token_all_come_in(
    server: RunningServer, issuer: Issuer
) -> None:
    token = issuer.token()
    async with server.client() as client:
        outcomes = await asyncio.gather(*(ask(client, token) for _ in range(50)))
    assert set(outcomes) == {("OK", "")}


async def test_file_without_keys_stops_the_start(tmp_path: Path, repository: Path) -> None:
    file = write_text(tmp_path / "jwks.json", '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}')
    with pytest.raises(StartupError, match="holds no public key"):
        async with run_server(config(repository, str(file))):
            raise AssertionError("it serves")
