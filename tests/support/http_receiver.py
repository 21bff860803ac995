"""A receiver of webhooks: answers one message with each status it was given, and keeps them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.loopback_server import loopback_server


@dataclass(frozen=True)
class Message:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Statuses: 0 closes the connection without an answer, -1 never answers."""

    statuses: list[int]
    port: int = 0
    _came: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    async def next(self) -> Message:
        """The next message."""
        async with asyncio.timeout(30):
            return await self._came.get()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        self._came.put_nowait(Message(method, path, headers, body))
        status = self.statuses.pop(0)
        if status == -1:
            await reader.read()
        elif status:
            writer.write(
                f"HTTP/1.1 {status} X\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".encode()
            )
            await writer.drain()


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    there = Receiver(list(statuses))
    async with loopback_server(there.answer) as server:
        there.port = server.sockets[0].getsockname()[1]
        yield there
