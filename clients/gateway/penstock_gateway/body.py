"""Bodies: read whole within bounds, inflated within bounds, compressed where it is asked for."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from penstock_gateway.errors import ClientGoneError, HttpError

__all__ = ["Budget", "Lease", "choose_encoding", "compress", "inflate", "read"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
ENCODINGS = "gzip, deflate"
_INLINE_BYTES = 4096
"""Compressed bodies up to this size are inflated at once; others on a thread."""
_MAX_INFLATING = 2
"""Bodies at a time: each may take the whole limit before the budget knows its size."""
_MIN_COMPRESSED_BYTES = 1024
_LEVEL = 1  # quick: it is done for every response of a client that asks


class Budget:
    """Bytes that the bodies of all requests may take together.

    Threading: confined to the event loop.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.inflating = asyncio.Semaphore(_MAX_INFLATING)

    def lease(self) -> Lease:
        """For one request."""
        return Lease(self)


class Lease:
    """What one request has of the budget. Lifecycle: grow any number of times -> release."""

    def __init__(self, budget: Budget) -> None:
        self.inflating = budget.inflating
        self._budget = budget
        self._taken_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Takes more; HttpError where there is no more."""
        budget = self._budget
        if budget.used_bytes + size_bytes > budget.limit_bytes:
            message = "the gateway holds as many bytes of requests as it may"
            raise HttpError(503, message, {"retry-after": "1"})
        budget.used_bytes += size_bytes
        self._taken_bytes += size_bytes

    def release(self) -> None:
        """Gives everything back."""
        self._budget.used_bytes -= self._taken_bytes
        self._taken_bytes = 0


async def read(receive: Receive, announced: bytes | None, limit_bytes: int, lease: Lease) -> bytes:
    """The whole body of a request.

    Args:
        receive: of ASGI.
        announced: the header Content-Length; None = chunked, or no body.
        limit_bytes: more than that is refused.
        lease: pays for it.

    Raises:
        HttpError: it is too long.
        ClientGoneError: the client has gone, or took too long.
    """
    if announced is not None and (not announced.isdigit() or int(announced) > limit_bytes):
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunk = message.get("body", b"")
        if chunk:
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            lease.grow(len(chunk))
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def inflate(data: bytes, encoding: str, limit_bytes: int, lease: Lease) -> bytes:
    """The body without its Content-Encoding.

    Raises:
        HttpError: 501 for an encoding that is not known, 413 for more than `limit_bytes`, 400 for
            what cannot be inflated.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in _WINDOW_BITS:
        message = f"unsupported Content-Encoding '{encoding[:64]}', expected {ENCODINGS}"
        raise HttpError(501, message, {"accept-encoding": ENCODINGS})
    if len(data) <= _INLINE_BYTES:
        inflated = _inflate(data, encoding, limit_bytes)
    else:
        async with lease.inflating:
            inflated = await asyncio.to_thread(_inflate, data, encoding, limit_bytes)
            lease.grow(len(inflated))
            return inflated
    lease.grow(len(inflated))
    return inflated


def choose_encoding(accepted: str) -> str:
    """What to compress a response with, as Accept-Encoding has it; "" = not at all."""
    best, best_weight = "", 0.0
    for part in accepted.lower().split(",")[:16]:
        name, *parameters = (each.strip() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                weight = _weight(parameter[2:])
        if name in ("gzip", "deflate") and weight > best_weight:
            best, best_weight = name, weight
    return best


async def compress(parts: list[bytes], encoding: str) -> bytes | None:
    """The body in the encoding; None where it is too short to be worth it."""
    size_bytes = sum(len(part) for part in parts)
    if size_bytes < _MIN_COMPRESSED_BYTES:
        return None
    if size_bytes < 16 * _INLINE_BYTES:
        return _compress(parts, encoding)
    return await asyncio.to_thread(_compress, parts, encoding)


def _compress(parts: list[bytes], encoding: str) -> bytes:
    worker = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return b"".join([*(worker.compress(part) for part in parts), worker.flush()])


def _inflate(data: bytes, encoding: str, limit_bytes: int) -> bytes:
    worker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        inflated = worker.decompress(data, limit_bytes + 1)
    except zlib.error as error:
        raise HttpError(400, f"the body is not {encoding}: {error}") from None
    if len(inflated) > limit_bytes:
        raise HttpError(413, f"the body inflates to more than {limit_bytes} bytes")
    if not worker.eof:
        raise HttpError(400, f"the body is not {encoding}: it ends too early")
    if worker.unused_data:
        raise HttpError(400, f"the body is not {encoding}: more bytes follow its end")
    return inflated


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _too_large(limit_bytes: int) -> HttpError:
    # The connection goes on, within bounds (`protocol`): a client that is still sending when it is
    # closed may never see the answer.
    return HttpError(413, f"the request body is larger than {limit_bytes} bytes")
