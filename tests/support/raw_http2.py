"""HTTP/2 frames by hand: what no gRPC library would send, and how none would hang up."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, END_HEADERS = 1, 4

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """A string of HPACK without Huffman coding."""
    data = value.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def headers(stream: int, path: str = INFER, *, flags: int = END_HEADERS) -> bytes:
    """The request headers of a gRPC call: literal fields, nothing indexed."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "chaos",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    return frame(HEADERS, flags, stream, block)


def message(payload: bytes, *, claim: int | None = None) -> bytes:
    """A gRPC message, whose length may be a lie."""
    return struct.pack(">BI", 0, len(payload) if claim is None else claim) + payload


def data(stream: int, payload: bytes, *, end: bool = True) -> bytes:
    """DATA frames of at most 16 KiB."""
    parts = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frame(DATA, END_STREAM if end and at == last else 0, stream, part)
        for at, part in enumerate(parts)
    )


class Connection:
    """A TCP connection that may end without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> bool:
        """Sends; whether the other side still listens."""
        try:
            self.writer.write(b"".join(parts))
            await self.writer.drain()
        except ConnectionError:
            return False
        return True

    async def receive(self, timeout_s: float = 1.0) -> bytes:
        """Some bytes; none once the other side has hung up, or where it says nothing for long."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.reader.read(65536)
        except (ConnectionError, TimeoutError):
            return b""

    def reset(self) -> None:
        """Hangs up with RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@asynccontextmanager
async def connection(port: int, host: str = "127.0.0.1") -> AsyncIterator[Connection]:
    """A connection, closed at the end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # reset, by either side
