"""HTTP/2 frames by hand: what no gRPC library would send, and how none would hang up."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
ACK = 1

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """A string of HPACK without Huffman coding."""
    data = value.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def headers(
    stream: int,
    path: str = INFER,
    further: Mapping[str, str] = MappingProxyType({}),
    *,
    flags: int = END_HEADERS,
) -> bytes:
    """The request headers of a gRPC call: literal fields, nothing indexed."""
    return frame(HEADERS, flags, stream, header_block(path, further))


def header_block(
    path: str = INFER, further: Mapping[str, str] = MappingProxyType({}), **changes: str
) -> bytes:
    """The fields of those; changes replace what begins with a colon."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "chaos",
        "content-type": "application/grpc",
        "te": "trailers",
        **further,
        **{f":{name}": value for name, value in changes.items()},
    }
    return b"".join(field(name, value) for name, value in fields.items())


def field(name: str, value: str) -> bytes:
    """A literal field that is not to be indexed."""
    return b"\0" + _text(name) + _text(value)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def reset_stream(stream: int, code: int = 8) -> bytes:
    """CANCEL, if nothing else."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def message(payload: bytes, *, claim: int | None = None, is_compressed: bool = False) -> bytes:
    """A gRPC message, whose length may be a lie."""
    size = len(payload) if claim is None else claim
    return struct.pack(">BI", is_compressed, size) + payload


def messages(received: bytes, stream: int) -> Iterator[tuple[bool, bytes]]:
    """The whole gRPC messages that came on a stream: whether compressed, and the bytes."""
    body = b"".join(
        payload for kind, _, at, payload in whole_frames(received) if (kind, at) == (DATA, stream)
    )
    while len(body) >= 5 and len(body) >= 5 + (size := struct.unpack(">I", body[1:5])[0]):
        yield body[0] == 1, body[5 : 5 + size]
        body = body[5 + size :]


def whole_frames(received: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of the whole frames that came."""
    at = 0
    while len(received) >= at + 9:
        size = int.from_bytes(received[at : at + 3], "big")
        if len(received) < at + 9 + size:
            return
        stream = int.from_bytes(received[at + 5 : at + 9], "big")
        yield received[at + 3], received[at + 4], stream, received[at + 9 : at + 9 + size]
        at += 9 + size


def trailers(received: bytes, stream: int) -> dict[str, str]:
    """The fields of the HEADERS frame that ended a stream; none where it has not ended so."""
    decoder = hpack.Decoder()
    found: dict[str, str] = {}
    for kind, flags, at, payload in whole_frames(received):
        if kind != HEADERS:
            continue
        fields = {str(name): str(value) for name, value in decoder.decode(payload)}
        if at == stream and flags & END_STREAM:
            found = fields
    return found


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
        """Hangs up with RST instead of FIN, unless the other side was quicker."""
        if self.writer.transport.is_closing():
            return
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@asynccontextmanager
async def connection(
    port: int, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Connection]:
    """A connection, closed at the end."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass  # reset, by either side
