"""The keys that tokens are verified with: a JSON Web Key Set from a file or a URL (RFC 7517)."""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError

__all__ = ["PublicKey", "fetch_keys", "is_forgeable", "is_url", "parse_keys", "read_keys"]

_MAX_BYTES = 1024 * 1024
_MAX_KEYS = 256
_TIMEOUT_S = 5.0
_CHUNK_BYTES = 65536
_MIN_RSA_BITS = 2048
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_KINDS = ("RSA", "EC", "OKP")  # what has a public half; "oct" is a secret that both sides know


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies.

    Attributes:
        key: as PyJWT takes it.
        algorithm: the only one it may be used with; empty = any that fits its kind.
    """

    key: Any
    algorithm: str


_log = logging.getLogger(__name__)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Keys come from where the operator said, and from nowhere else."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def is_url(source: str) -> bool:
    """Whether the source is a URL and not a file."""
    return source.startswith(("http://", "https://"))


def is_forgeable(url: str) -> bool:
    """Whether it is fetched in plain text from another machine."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def read_keys(path: Path) -> dict[str, PublicKey]:
    """The keys of a file, by id.

    Blocking: reads the file.

    Raises:
        ConfigError: it cannot be read, or holds no key that verifies.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot read it: {error.strerror}"]) from None
    return parse_keys(text, str(path))


def fetch_keys(url: str) -> dict[str, PublicKey]:
    """The keys of a URL, by id.

    Blocking: for a bounded time; run it in a thread.

    Raises:
        ConfigError: nobody answers in time, or not with a set of keys.
    """
    deadline_s = time.monotonic() + _TIMEOUT_S
    text = b""
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_S) as response:
            while len(text) <= _MAX_BYTES and (chunk := response.read1(_CHUNK_BYTES)):
                text += chunk
                if time.monotonic() > deadline_s:
                    raise ConfigError([f"{url}: no whole answer within {_TIMEOUT_S:g} s"])
    except ConfigError:
        raise
    except urllib.error.HTTPError as error:
        with error:
            raise ConfigError([f"{url}: answers with status {error.code}"]) from None
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError([f"{url}: {_reason(error)}"]) from None
    except Exception as error:  # http.client's own: an answer that is no HTTP
        raise ConfigError([f"{url}: {type(error).__name__}"]) from None
    return parse_keys(text, url)


def parse_keys(text: bytes, source: str) -> dict[str, PublicKey]:
    """The keys that verify, by id; what is for another use or of another kind is left out.

    Raises:
        ConfigError: it is no set of keys, or none of them verifies.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError([f"{source}: larger than {_MAX_BYTES} bytes"])
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError([f"{source}: it is not JSON"]) from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise ConfigError([f'{source}: expected an object with "keys", at most {_MAX_KEYS}'])
    keys = {}
    for entry in entries:
        key = _public_key(entry)
        if key is not None:
            keys[str(entry.get("kid", ""))] = key
    if not keys:
        raise ConfigError([f"{source}: holds no public key that verifies signatures"])
    return keys


def _public_key(entry: Any) -> PublicKey | None:
    import jwt

    if not isinstance(entry, Mapping) or entry.get("kty") not in _KINDS:
        return None
    if entry.get("use", "sig") != "sig" or "d" in entry:  # or a private key: it verifies nothing
        return None
    try:
        parsed = jwt.PyJWK(dict(entry))
    except Exception:  # of several libraries; one key that they do not know must hide no other
        _log.debug("a key of the set is left out", exc_info=True)
        return None
    if entry["kty"] == "RSA" and parsed.key.key_size < _MIN_RSA_BITS:
        return None
    return PublicKey(parsed.key, str(entry.get("alg", "")))


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "no answer" if isinstance(error, TimeoutError) else type(error).__name__
