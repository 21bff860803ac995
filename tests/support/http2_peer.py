"""A client of HTTP/2 that may do as it likes, and what its deeds come to."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Container, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hpack
from tests.support import raw_http2 as http2

PATIENCE_S = 60.0
STALL_S = 5.0
"""A write that the server does not take for so long is given up: it holds the peer back."""

_PROBE = b"aliveyet"
_INITIAL_WINDOW = 4
_MAX_HEADERS = 1 << 24  # a server may say at length what it has against ours
_DEFAULT_WINDOW = 65535


@dataclass
class Findings:
    """What the server has said.

    Attributes:
        goaway: the code of the last GOAWAY; None: there was none.
        resets: of streams, by code; NO_ERROR is none.
        statuses: of streams that ended: grpc-status, or HTTP's where that is not 200.
        is_closed: the server has hung up.
        is_stalled: it takes no more bytes.
        is_alive: it answered a ping that came after everything else.
    """

    goaway: int | None = None
    resets: dict[int, int] = field(default_factory=dict)
    statuses: dict[int, str] = field(default_factory=dict)
    is_closed: bool = False
    is_stalled: bool = False
    is_alive: bool = False

    @property
    def outcome(self) -> str:
        """The gravest of what happened, in a word; "" as long as nothing did.

        "told": a GOAWAY with an error, but the connection is still there.
        """
        if self.is_closed:
            return "closed"
        if self.goaway:
            return "told"
        if self.is_stalled:
            return "stalled"
        if self.resets:
            return "reset"
        if any(status != "0" for status in self.statuses.values()):
            return "refused"
        if self.statuses:
            return "answered"
        return "ignored" if self.is_alive else ""


class Peer:
    """One connection to the server under test."""

    def __init__(self, port: int, connection: http2.Connection) -> None:
        self.port = port
        self.findings = Findings()
        self._connection = connection
        self._received = b""
        self._decoder = hpack.Decoder(max_header_list_size=_MAX_HEADERS)
        self._initial_window = _DEFAULT_WINDOW
        self._windows = {0: _DEFAULT_WINDOW}

    async def send(self, *parts: bytes) -> bool:
        """Sends; whether the server still takes it."""
        if self.findings.is_stalled or self.findings.is_closed:
            return False
        try:
            async with asyncio.timeout(STALL_S):
                if await self._connection.send(*parts):
                    return True
                self.findings.is_closed = True
        except TimeoutError:
            self.findings.is_stalled = True
        return False

    async def pour(self, parts: Iterable[bytes], at_a_time: int = 200) -> bool:
        """Sends one after the other, as fast as the server takes them."""
        bunch: list[bytes] = []
        for part in parts:
            bunch.append(part)
            if len(bunch) == at_a_time:
                if not await self.send(*bunch):
                    return False
                bunch.clear()
        return await self.send(*bunch)

    async def send_body(self, stream: int, body: bytes) -> bool:
        """DATA that does not end the stream, as far and as fast as the server's windows allow."""
        self._windows.setdefault(stream, self._initial_window)
        while body and not self.findings.is_closed:
            room = min(self._windows[0], self._windows[stream], 16384)
            if room <= 0:
                if not await self._read_within(STALL_S):
                    return False
                continue
            part, body = body[:room], body[room:]
            if not await self.send(http2.frame(http2.DATA, 0, stream, part)):
                return False
            self._windows[0] -= len(part)
            self._windows[stream] -= len(part)
        return not body

    async def greet(self, *settings: tuple[int, int]) -> None:
        await self.send(http2.PREFACE, http2.settings(*settings))

    async def end_sending(self) -> None:
        """FIN: nothing more will come, but this side still listens."""
        self._connection.writer.write_eof()

    async def finding(self, expected: Container[str]) -> Findings:
        """Reads until what was found is what is expected, or cannot be any more."""
        if "ignored" in expected:
            await self.send(http2.frame(http2.PING, 0, 0, _PROBE))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.findings.outcome not in expected and not self.findings.is_closed:
                    await self._read_some()
        except TimeoutError:
            pass  # the findings say what there was until then
        return self.findings

    async def _read_within(self, seconds: float) -> bool:
        """Whether something came; else the server holds the peer back."""
        try:
            async with asyncio.timeout(seconds):
                await self._read_some()
        except TimeoutError:
            self.findings.is_stalled = True
            return False
        return True

    async def _read_some(self) -> None:
        try:
            came = await self._connection.reader.read(65536)
        except ConnectionError:
            came = b""
        if not came:
            self.findings.is_closed = True
            return
        self._received += came
        rest = self._received
        for kind, flags, stream, payload in http2.whole_frames(self._received):
            rest = rest[9 + len(payload) :]
            await self._take(kind, flags, stream, payload)
        self._received = rest

    async def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2.SETTINGS and not flags & http2.ACK:
            await self.send(http2.frame(http2.SETTINGS, http2.ACK, 0))
            self._take_settings(payload)
        elif kind == http2.WINDOW_UPDATE:
            window = self._windows.get(stream, self._initial_window)
            self._windows[stream] = window + struct.unpack(">I", payload)[0]
        elif kind == http2.PING and flags & http2.ACK:
            self.findings.is_alive |= payload == _PROBE
        elif kind == http2.GOAWAY:
            self.findings.goaway = struct.unpack(">I", payload[4:8])[0]
        elif kind == http2.RST_STREAM and (code := struct.unpack(">I", payload)[0]):
            self.findings.resets[stream] = code
        elif kind == http2.HEADERS:
            fields = {str(name): str(value) for name, value in self._decoder.decode(payload)}
            if fields.get(":status", "200") != "200":
                self.findings.statuses[stream] = fields[":status"]
            elif "grpc-status" in fields:
                self.findings.statuses[stream] = fields["grpc-status"]

    def _take_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name != _INITIAL_WINDOW:
                continue
            grown = value - self._initial_window
            self._initial_window = value
            for stream in self._windows.keys() - {0}:
                self._windows[stream] += grown


@asynccontextmanager
async def peer_of(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """A connection on which nothing has been said; reset at the end."""
    async with http2.connection(port, tls=tls) as connection:
        try:
            yield Peer(port, connection)
        finally:
            connection.reset()
