"""The door over the border: metadata in, verdicts in, refusals out as errors."""

import hashlib
from typing import Any

import pytest
from tests.support.core_models import make_engine, request, serve, take

from penstock import _core
from penstock.errors import (
    Code,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)


def door(**policy: Any) -> _core.Access:
    return make_engine(access=_core.AccessPolicy(**policy)).access


def principal(*groups: str, **limits: Any) -> _core.Principal:
    return _core.Principal(name="key 'a'", groups=groups, **limits)


def test_no_policy_lets_all_in_unseen() -> None:
    access = make_engine().access
    assert not access.is_active
    access.admit("metadata", 1)


def test_names_and_values_may_be_text_or_bytes() -> None:
    access = door(restricted={"trace": ("triton-grpc-protocol-k-bin", "v")})
    for value in ("v", b"v"):
        caller = access.identify((("other", "x"), ("triton-grpc-protocol-k-bin", value)), "c")
        access.authorize("trace", caller)
    with pytest.raises(UnavailableError, match="This protocol is restricted"):
        access.authorize("trace", access.identify((), "c"))


def test_key_is_found_by_the_digest_that_hashlib_makes() -> None:
    access = door(needs_identity=True)
    for length in (1, 55, 56, 63, 64, 65, 200):
        key = "k" * length
        access.set_keys([(hashlib.sha256(key.encode()).digest(), principal("metadata"))])
        caller = access.identify((("x-api-key", key),), "c")
        access.admit("metadata", 1, caller)
        with pytest.raises(PermissionDeniedError, match="key 'a' may not call the group 'trace'"):
            access.admit("trace", 1, caller)
    assert caller.credential == "", "kept only where somebody verifies tokens"


def test_server_itself_is_let_in_without_a_key() -> None:
    access = door(needs_identity=True, connection_rate=0.5, connection_burst=1)
    for _ in range(3):
        access.admit("jobs", 1, _core.Caller.server())
    with pytest.raises(UnauthenticatedError):
        access.admit("jobs", 1)


def test_refusal_by_rate_carries_its_wait() -> None:
    access = door(connection_rate=0.5, connection_burst=1)
    caller = access.identify((), "c")
    access.admit("metadata", 1, caller)
    with pytest.raises(ResourceExhaustedError, match="try again in") as caught:
        access.admit("metadata", 1, caller)
    assert caught.value.retry_after_ms is not None
    assert 0 < caught.value.retry_after_ms <= 2000


def test_token_is_what_its_verifier_said_until_then() -> None:
    access = door(needs_identity=True, has_tokens=True)
    caller = access.identify((("authorization", "Bearer t"),), "c")
    assert caller.credential == "t"
    assert access.needs_verification("inference", caller)
    access.refuse(caller, Code.UNAUTHENTICATED, "the token has expired", 60.0)
    with pytest.raises(UnauthenticatedError, match="the token has expired"):
        access.admit("metadata", 1, caller)
    access.accept(caller, principal("metadata"), 60.0)
    access.admit("metadata", 1, caller)
    access.accept(caller, principal("metadata"), -1.0)
    access.forget_tokens()
    assert access.needs_verification("inference", caller)


def test_inference_that_is_refused_says_when_to_come_back() -> None:
    engine = make_engine(access=_core.AccessPolicy(connection_rate=0.5, connection_burst=1))
    serve(engine)
    caller = engine.access.identify((), "c")
    calls = [engine.infer(request(), 0, tag, False, caller) for tag in ("in", "out")]
    codes = {tag: code for tag, code, _, _ in take(engine, 2)}
    assert codes == {"in": Code.OK, "out": Code.RESOURCE_EXHAUSTED}
    assert calls[0].retry_after_ms() < 0
    assert 0 < calls[1].retry_after_ms() <= 2000


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda a: a.refuse(a.identify((), "c"), 0, "", 1.0), ValueError, "OK is no refusal"),
        (lambda a: a.accept(a.identify((), "c"), None, 1.0), TypeError, "accept"),
        (lambda a: a.set_keys([(b"short", principal())]), ValueError, "32 bytes, got 5"),
        (lambda a: a.identify(((1, 2),), "c"), TypeError, "bad argument type"),
        (lambda a: principal("none"), ValueError, "unknown group 'none'"),
        (lambda a: principal(per_second=-1.0), ValueError, "a rate is at least 0 per second"),
        (lambda a: principal(per_second=float("nan")), ValueError, "a rate is at least 0"),
        (lambda a: principal(burst=0.5), ValueError, "a burst of at least 1"),
    ],
)
def test_programming_errors_are_pythons_own(act: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        act(door(needs_identity=True, has_tokens=True))
