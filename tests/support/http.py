"""One HTTP/1.1 request on a connection of its own."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class HttpReply:
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(port: int, path: str, *, method: str = "GET", host: str = "127.0.0.1") -> HttpReply:
    """Sends a request without a body and reads the reply to the end of the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        request = f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        reply = await reader.read()
    finally:
        writer.close()
    await writer.wait_closed()
    head, _, body = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return HttpReply(int(status.split()[1]), {k.lower(): v for k, _, v in pairs}, body)
