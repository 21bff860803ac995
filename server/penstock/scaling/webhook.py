"""A webhook: each decision as signed JSON.

::

    POST <url>
    Content-Type: application/json
    Penstock-Timestamp: 1769860800                 seconds since 1970, of this attempt
    Penstock-Signature: v1=<hex>                   HMAC-SHA256 of `<timestamp>.<body>`

    {"model": "digits", "replicas": 3, "previous": 2, "is_active": true, "reason": "...",
     "signals": {"arrival_rate": 210.0, ...}}

A receiver checks the signature over the bytes as they came, and that the timestamp is of the last
minutes: `verify` does both. Any 2xx is success; 408, 429, 5xx and no answer are tried again; what
else there is, redirections included, is final.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import urlsplit

import h11

from penstock.errors import StartupError
from penstock.scaling.hooks import Change, HookError
from penstock.scaling.http_get import FetchError, send

__all__ = ["SIGNATURE_HEADER", "TIMESTAMP_HEADER", "Webhook", "sign", "verify"]

TIMESTAMP_HEADER = "Penstock-Timestamp"
SIGNATURE_HEADER = "Penstock-Signature"
_MAX_ANSWER_BYTES = 1 << 16
_MIN_SECRET_BYTES = 16
_RETRIED = {408, 429}


def sign(secret: bytes, timestamp: int, body: bytes) -> str:
    """The signature's header."""
    signed = f"{timestamp}.".encode() + body
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def verify(
    secret: bytes,
    timestamp: str,
    signature: str,
    body: bytes,
    *,
    now: float,
    tolerance_s: float = 300.0,
) -> bool:
    """Whether a message is ours and recent.

    Args:
        secret: shared with the sender.
        timestamp: header as it came.
        signature: header as it came.
        body: bytes as they came.
        now: seconds since 1970.
        tolerance_s: greatest age, and greatest lead of the sender's clock.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 20):
        return False
    is_ours = hmac.compare_digest(
        sign(secret, int(timestamp), body).encode(), signature.encode(errors="replace")
    )
    return is_ours and abs(now - int(timestamp)) <= tolerance_s


class Webhook:
    """A hook that posts.

    Threading: confined to the event loop.
    """

    def __init__(
        self, url: str, secret: bytes, *, timeout_s: float, wall_clock: Callable[[], float]
    ) -> None:
        """Raises StartupError for a URL or a secret that will not do."""
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise StartupError(f"--webhook-url: {error}") from None
        if not parts.hostname or parts.username is not None or not url.isascii():
            raise StartupError("--webhook-url: expected scheme://host[:port]/path and no user")
        if len(secret) < _MIN_SECRET_BYTES:
            raise StartupError(f"the webhook's secret has less than {_MIN_SECRET_BYTES} bytes")
        self._target = parts.hostname, port
        self._host = parts.netloc
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._secret = secret
        self._timeout_s = timeout_s
        self._wall_clock = wall_clock

    async def __call__(self, change: Change) -> None:
        """Posts a change; raises HookError."""
        body = json.dumps(asdict(change), separators=(",", ":")).encode()
        timestamp = int(self._wall_clock())
        request = h11.Request(
            method="POST",
            target=self._path,
            headers=[
                ("Host", self._host),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                (TIMESTAMP_HEADER, str(timestamp)),
                (SIGNATURE_HEADER, sign(self._secret, timestamp, body)),
            ],
        )
        try:
            status, _ = await send(
                self._target,
                request,
                body,
                timeout_s=self._timeout_s,
                max_bytes=_MAX_ANSWER_BYTES,
                tls=self._tls,
            )
        except FetchError as error:
            raise HookError(str(error)) from None
        if not 200 <= status < 300:
            is_final = status < 500 and status not in _RETRIED
            raise HookError(f"HTTP status {status}", is_final=is_final)
