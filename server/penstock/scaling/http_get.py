"""One GET over HTTP/1.1, bounded in time and bytes: what asking a replica takes, and no more."""

from __future__ import annotations

import asyncio
import ssl

import h11

__all__ = ["FetchError", "Target", "fetch", "send"]

_CHUNK_BYTES = 65536

Target = tuple[str, int]
"""Address and port."""


class FetchError(Exception):
    """There is no answer, or none that can be used; the text tells why, for the log."""


async def fetch(
    target: Target,
    path: str,
    *,
    host: str,
    timeout_s: float,
    max_bytes: int,
    tls: ssl.SSLContext | None = None,
) -> str:
    """The body of the answer, of status 200 and UTF-8.

    Args:
        target: what to connect to.
        path: of the URL.
        host: for the header, and what a certificate must name.
        timeout_s: for all of it.
        max_bytes: of the body.
        tls: None = plain HTTP.

    Raises:
        FetchError: anything else.
    """
    request = h11.Request(
        method="GET", target=path, headers=[("Host", host), ("Connection", "close")]
    )
    status, body = await send(
        target, request, b"", timeout_s=timeout_s, max_bytes=max_bytes, tls=tls
    )
    if status != 200:
        raise FetchError(f"HTTP status {status}")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise FetchError("the answer is not UTF-8") from None


async def send(
    target: Target,
    request: h11.Request,
    content: bytes,
    *,
    timeout_s: float,
    max_bytes: int,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """Sends a request with its body; status and body of the answer. Raises FetchError."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(target, request, content, max_bytes, tls)
    except TimeoutError:
        raise FetchError(f"no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise FetchError((error.strerror or str(error)).lower()) from None
    except h11.ProtocolError as error:
        raise FetchError(f"the answer is no HTTP: {error}") from None


async def _exchange(
    target: Target, request: h11.Request, content: bytes, max_bytes: int, tls: ssl.SSLContext | None
) -> tuple[int, bytes]:
    options = {"ssl": tls, "server_hostname": _host(request)} if tls else {}
    reader, writer = await asyncio.open_connection(*target, **options)  # type: ignore[arg-type]
    try:
        connection = h11.Connection(h11.CLIENT)
        writer.write(connection.send(request) or b"")
        if content:
            writer.write(connection.send(h11.Data(data=content)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        return await _answer(connection, reader, max_bytes)
    finally:
        writer.transport.abort()  # all is said; an orderly end would wait for the other side


async def _answer(
    connection: h11.Connection, reader: asyncio.StreamReader, max_bytes: int
) -> tuple[int, bytes]:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_CHUNK_BYTES)
            if not data and not status:
                raise FetchError("the connection was closed before the answer")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise FetchError(f"the answer is over {max_bytes} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)


def _host(request: h11.Request) -> str:
    host = dict(request.headers).get(b"host", b"").decode()
    return host.rsplit(":", 1)[0].strip("[]") if ":" in host else host
