"""What a token says, once its signature holds (RFC 7519); no I/O, no clock but PyJWT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.access.jwks import PublicKey
from penstock.errors import UnauthenticatedError

__all__ = ["Claims", "TokenRules", "UnknownKeyError", "read_token"]

_MAX_TOKEN_BYTES = 16 * 1024
_MAX_SUBJECT = 128


class UnknownKeyError(UnauthenticatedError):
    """The token names a key that is not in the set; a newer set may have it."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which tokens are good.

    Attributes:
        algorithms: of signatures.
        issuer: who must have made the token; empty = anybody with a key of the set.
        audiences: for whom it must be, one of these; empty = for anybody.
        leeway_s: by how much clocks may differ.
    """

    algorithms: tuple[str, ...]
    issuer: str
    audiences: tuple[str, ...]
    leeway_s: float


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says.

    Attributes:
        subject: whose it is.
        expires_at: until when, in seconds since the epoch, leeway included.
    """

    subject: str
    expires_at: float


def read_token(token: str, keys: Mapping[str, PublicKey], rules: TokenRules) -> Claims:
    """What the token says.

    Raises:
        UnknownKeyError: its key is not in the set.
        UnauthenticatedError: why it is no good; nothing of the token is in the text.
    """
    import jwt

    if token.count(".") != 2 or len(token) > _MAX_TOKEN_BYTES:
        raise UnauthenticatedError("the key or token is not known to this server")
    try:
        key, algorithms = _choose_key(jwt.get_unverified_header(token), keys, rules)
        claims = jwt.decode(
            token,
            key.key,
            algorithms=algorithms,
            audience=list(rules.audiences) or None,
            issuer=rules.issuer or None,
            leeway=rules.leeway_s,
            options={"require": ["exp", "sub"], "verify_aud": bool(rules.audiences)},
        )
        return _claims(claims, rules)
    except jwt.PyJWTError as error:
        raise UnauthenticatedError(_refusal(error)) from None
    except (TypeError, ValueError, RecursionError, OverflowError):
        raise UnauthenticatedError("the token is malformed") from None


def _choose_key(
    header: Mapping[str, Any], keys: Mapping[str, PublicKey], rules: TokenRules
) -> tuple[PublicKey, list[str]]:
    """The key, and with which algorithms it may be used: its own says more than the header."""
    algorithm, name = header.get("alg"), header.get("kid", "")
    if algorithm not in rules.algorithms:
        raise UnauthenticatedError(
            f"the token's algorithm is not one of {', '.join(rules.algorithms)}"
        )
    if name == "" and len(keys) == 1:
        (key,) = keys.values()
    elif name in keys:
        key = keys[name]
    else:
        raise UnknownKeyError("the token names no key that this server knows")
    return key, [key.algorithm or str(algorithm)]


def _claims(claims: Mapping[str, Any], rules: TokenRules) -> Claims:
    subject = claims["sub"]
    if not (subject and subject.isprintable() and len(subject) <= _MAX_SUBJECT):
        raise UnauthenticatedError(f"the token's 'sub' is not 1 to {_MAX_SUBJECT} characters")
    return Claims(subject, float(claims["exp"]) + rules.leeway_s)


def _refusal(error: Exception) -> str:
    import jwt

    texts: dict[type[Exception], str] = {
        jwt.ExpiredSignatureError: "the token has expired",
        jwt.ImmatureSignatureError: "the token is not valid yet",
        jwt.InvalidIssuerError: "the token's issuer is not the one this server trusts",
        jwt.InvalidAudienceError: "the token is not meant for this server",
        jwt.MissingRequiredClaimError: "the token lacks a claim: 'exp', 'sub', or who it is for",
        jwt.InvalidAlgorithmError: "the token's algorithm does not fit its key",
        jwt.InvalidSignatureError: "the token's signature is wrong",
    }
    return texts.get(type(error), "the token is malformed")
