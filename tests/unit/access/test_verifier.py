"""Tokens that the core does not know: verified once, bounded, and by the keys of now."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, key_set

from penstock.access import verifier as verifier_module
from penstock.access.jwks import PublicKey, fetch_keys, is_forgeable, parse_keys
from penstock.access.tokens import Claims, TokenRules
from penstock.access.verifier import KeySet, TokenVerifier
from penstock.core import Principal
from penstock.errors import Code, ConfigError, ResourceExhaustedError

RULES = TokenRules(("ES256",), ISSUER, (AUDIENCE,), 5.0)


@dataclass(frozen=True)
class FakeCaller:
    credential: str


@dataclass
class FakeAccess:
    """Remembers what it was told."""

    accepted: list[tuple[str, float]] = field(default_factory=list)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    forgotten: int = 0
    asked: list[str] = field(default_factory=list)
    is_over: bool = False

    def admit_verification(self, caller: Any) -> None:
        self.asked.append(caller.credential)
        if self.is_over:
            raise ResourceExhaustedError("over", 20)

    def accept(self, caller: Any, principal: Principal, valid_s: float) -> None:
        self.accepted.append((caller.credential, valid_s))

    def refuse(self, caller: Any, code: int, reason: str, valid_s: float) -> None:
        self.refused.append((caller.credential, code, reason))

    def forget_tokens(self) -> None:
        self.forgotten += 1


def keys_of(*issuers: Issuer) -> dict[str, PublicKey]:
    return parse_keys(key_set(*issuers).encode(), "test")


@asynccontextmanager
async def verifying(
    fetch: Callable[[], Mapping[str, PublicKey]],
) -> AsyncIterator[tuple[TokenVerifier, KeySet, FakeAccess]]:
    access = FakeAccess()
    keys = KeySet(fetch, access.forget_tokens)

    def principal(claims: Claims) -> Principal:
        return Principal(name=claims.subject, groups=())

    verifier = TokenVerifier(access, keys, RULES, principal)
    try:
        yield verifier, keys, access
    finally:
        verifier.close()


def caller(token: str) -> Any:
    return FakeCaller(token)


async def test_connection_over_its_allowance_has_nothing_verified() -> None:
    issuer = Issuer()
    async with verifying(lambda: keys_of(issuer)) as (verifier, _, access):
        access.is_over = True
        with pytest.raises(ResourceExhaustedError, match="over"):
            await verifier.verify(caller("a.b.c"))
        access.is_over = False
        await asyncio.gather(*(verifier.verify(caller("a.b.c")) for _ in range(20)))
    assert access.asked == ["a.b.c"] * 2  # once for each verification
    assert len(access.refused) == 1


async def test_one_token_of_many_calls_is_verified_once() -> None:
    issuer = Issuer()
    token = issuer.token(valid_s=60)
    async with verifying(lambda: keys_of(issuer)) as (verifier, _, access):
        await asyncio.gather(*(verifier.verify(caller(token)) for _ in range(20)))
    ((told, valid_s),) = access.accepted
    assert told == token
    assert 0 < valid_s <= 65


async def test_long_lived_token_is_not_trusted_for_its_whole_life() -> None:
    issuer = Issuer()
    async with verifying(lambda: keys_of(issuer)) as (verifier, _, access):
        await verifier.verify(caller(issuer.token(valid_s=1e6)))
    assert access.accepted[0][1] == 300


async def test_caller_that_leaves_takes_the_verification_from_nobody() -> None:
    issuer, may_fetch = Issuer(), threading.Event()

    def fetch() -> Mapping[str, PublicKey]:
        may_fetch.wait()
        return keys_of(issuer)

    token = issuer.token()
    async with verifying(fetch) as (verifier, _, access):
        first, second = (asyncio.create_task(verifier.verify(caller(token))) for _ in range(2))
        await asyncio.wait({first}, timeout=0)
        first.cancel()
        may_fetch.set()
        await second
    assert len(access.accepted) == 1
    assert first.cancelled()


async def test_too_many_at_a_time_are_refused_with_a_time_to_come_back() -> None:
    issuer, may_fetch = Issuer(), threading.Event()

    def fetch() -> Mapping[str, PublicKey]:
        may_fetch.wait()
        return keys_of(issuer)

    async with verifying(fetch) as (verifier, _, access):
        waiting = [asyncio.create_task(verifier.verify(caller(f"x.y.{i}"))) for i in range(1024)]
        await asyncio.wait({waiting[-1]}, timeout=0)
        try:
            with pytest.raises(ResourceExhaustedError, match="too many tokens") as caught:
                await verifier.verify(caller(issuer.token()))
        finally:
            may_fetch.set()
        assert caught.value.retry_after_ms == 1000
        await asyncio.gather(*waiting)
    assert len(access.refused) == 1024


async def test_without_any_keys_the_answer_is_unavailable() -> None:
    def fetch() -> Mapping[str, PublicKey]:
        raise ConfigError(["nobody answers"])

    async with verifying(fetch) as (verifier, _, access):
        await verifier.verify(caller(Issuer().token()))
    ((_, code, reason),) = access.refused
    assert code == Code.UNAVAILABLE
    assert "tokens cannot be verified now" in reason


async def test_other_keys_forget_what_was_verified_and_the_same_do_not() -> None:
    one, two = Issuer("one"), Issuer("two")
    async with verifying(lambda: keys_of(one)) as (_, keys, access):
        keys.replace(keys_of(one))
        keys.replace(keys_of(one))
        assert access.forgotten == 1
        keys.replace(keys_of(one, two))
        assert access.forgotten == 2
        keys.replace(keys_of(Issuer("one"), two))
        assert access.forgotten == 3


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"kty": "oct"},
        {"crv": "unknown"},
        {"x": "!"},
        {"kty": 1},
        {"x": 1},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    ],
)
def test_key_of_another_use_or_kind_hides_no_other(change: dict[str, object]) -> None:
    good, odd = Issuer("good"), Issuer("odd")
    odd.jwk.update(change)
    text = json.dumps({"keys": [odd.jwk, 7, None, good.jwk]})
    assert list(parse_keys(text.encode(), "test")) == ["good"]


@pytest.mark.parametrize(
    "text", ["", "1", "{}", '{"keys": 1}', '{"keys": []}', "[" * 100_000, " " * 1_048_577]
)
def test_what_is_no_key_set_is_a_fault(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_keys(text.encode(), "test")


@pytest.mark.parametrize(
    ("url", "is_so"),
    [
        ("http://issuer.example/keys", True),
        ("https://issuer.example/keys", False),
        ("http://127.0.0.1:1/keys", False),
        ("http://[::1]:1/keys", False),
    ],
)
def test_plain_http_from_elsewhere_is_forgeable(url: str, is_so: bool) -> None:
    assert is_forgeable(url) is is_so


def test_url_that_nobody_serves_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="connection refused"):
        fetch_keys("http://127.0.0.1:1/keys")


def test_private_key_in_a_set_is_left_out_and_hides_no_other() -> None:
    good, leaked = Issuer("good"), Issuer("leaked")
    leaked.jwk["d"] = leaked.jwk["x"]
    assert keys_of(good, leaked).keys() == {"good"}
    with pytest.raises(ConfigError, match="holds no public key"):
        keys_of(leaked)


async def test_source_that_trickles_is_given_up_on_and_not_asked_again_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verifier_module, "_MAX_FETCH_S", 0.05)
    asked: list[int] = []
    may_end = threading.Event()

    def fetch() -> dict[str, PublicKey]:
        asked.append(1)
        assert may_end.wait(30)
        return keys_of(Issuer())

    keys = KeySet(fetch, lambda: None, min_interval_s=0.0)
    for _ in range(2):
        await keys.refresh(even_if_recent=True)
    assert (keys.keys, len(asked)) == ({}, 1)
    assert "no whole answer within 0.05 s" in caplog.text
    may_end.set()
