"""One HTTP/1.1 request on a connection of its own."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HttpReply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    host: str = "127.0.0.1",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> HttpReply:
    """Sends a request and reads the reply to the end of the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        reply = await reader.read()
    finally:
        writer.close()
    await writer.wait_closed()
    head, _, body = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return HttpReply(int(status.split()[1]), {k.lower(): v for k, _, v in pairs}, body)


async def post(
    port: int, path: str, value: object = None, headers: Mapping[str, str] | None = None
) -> HttpReply:
    """POSTs JSON, or no body."""
    body = b"" if value is None else json.dumps(value).encode()
    return await ask(port, path, method="POST", body=body, headers=headers)
