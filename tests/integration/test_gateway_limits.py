"""Hostile HTTP against the gateway on a real port: every bound holds, and it serves on."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.fake_upstream import FakeUpstream, echo, metadata, response
from tests.support.http import ask

from penstock.frontend.http_server import HttpServer
from penstock_gateway.app import Gateway
from penstock_gateway.options import Options
from penstock_gateway.protocol import make_protocol
from penstock_gateway.upstream import Call

pytestmark = pytest.mark.any_transport

INFER = "/v2/models/m/infer"
BODY = b'{"inputs":[]}'


def head(*lines: str, path: str = INFER, verb: str = "POST") -> bytes:
    return "\r\n".join([f"{verb} {path} HTTP/1.1", "Host: t", *lines, "", ""]).encode("latin-1")


def request(body: bytes = BODY) -> bytes:
    return head(f"Content-Length: {len(body)}") + body


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


class Client:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        async with asyncio.timeout(30):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = raw.split("\r\n")[:-2]
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(status.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Waits until the server closes; whether it did so without another word."""
        async with asyncio.timeout(30):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


async def let_go(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def gateway(upstream: Any = None, **options: Any) -> AsyncIterator[Callable[[], Any]]:
    """Yields what connects to it; it must answer a good request at the end."""
    made = Options(**options)
    application = Gateway(upstream or FakeUpstream(), made)
    server = HttpServer(application, "127.0.0.1", 0, "HTTP", protocol=make_protocol(made))
    server.bind()
    await server.start()
    writers = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        return Client(reader, writer)

    try:
        yield connect
        await let_go(writers)
        assert (await ask(server.port, "/v2/health/live")).status == 200
    finally:
        await let_go(writers)
        await server.stop()


@pytest.mark.parametrize("sent", [b"", b"PO", b"POST /v2 HTTP/1.1\r\nHost: t\r\nX-A: ", request()])
async def test_client_that_does_not_finish_its_headers_is_sent_away(sent: bytes) -> None:
    async with gateway(header_timeout_s=0.1) as connect:
        client = await connect()
        await client.send(sent)
        if sent == request():
            assert (await client.reply()).status == 200
        if b"X-A" in sent:
            refused = await client.reply()
            assert (refused.status, refused.headers["connection"]) == (408, "close")
        elif sent == b"PO":
            assert (await client.reply()).status == 408
        assert await client.is_closed()


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_client_that_does_not_finish_its_body_is_sent_away(framing: str) -> None:
    async with gateway(upstream := FakeUpstream(), body_timeout_s=0.1) as connect:
        client = await connect()
        await client.send(head(framing) + (b"5\r\n" if "chunked" in framing else b"") + b"{    ")
        refused = await client.reply()
        assert (refused.status, refused.error) == (408, "the request's body did not come in time")
        assert await client.is_closed()
        assert upstream.calls == []


async def test_body_that_comes_steadily_may_take_longer() -> None:
    async with gateway(body_timeout_s=0.0) as connect:
        client = await connect()
        body = BODY + b" " * (1 << 20)
        await client.send(head(f"Content-Length: {len(body)}") + body[: 1 << 19])
        for _ in range(10):  # the time is up at once; what has come has bought seconds
            other = await connect()
            await other.send(head(verb="GET", path="/v2/health/live"))
            assert (await other.reply()).status == 200
        await client.send(body[1 << 19 :])
        assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        head(*[f"X-{n}: {'a' * 100}" for n in range(100)]),
        head("X-A: " + "a" * 5000),
        b"POST /" + b"a" * 5000,
        head(path="/" + "a" * 5000),
        b"GET /v2 HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 100_000,
    ],
)
async def test_headers_over_the_limit_are_431(sent: bytes) -> None:
    async with gateway(max_header_bytes=4096) as connect:
        client = await connect()
        await client.send(sent)
        assert (await client.reply()).status == 431
        assert await client.is_closed()


async def test_large_body_before_the_next_head_is_no_part_of_it() -> None:
    async with gateway(max_header_bytes=1024) as connect:
        client = await connect()
        await client.send(request(BODY + b" " * 60_000) + request()[:30])
        assert (await client.reply()).status == 200
        await client.send(request()[30:])
        assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        head("Content-Length: 13", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Content-Length: 13", "Content-Length: 12") + BODY,
        head("Content-Length: -1") + BODY,
        head("Content-Length: 1e3") + BODY,
        head("Content-Length: 99999999999999999999999") + BODY,
        head("Content-Length : 13") + BODY,
        head("Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"zz\r\n",
        head("Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n",
        head("Transfer-Encoding: chunked") + b"-5\r\n{    \r\n",
        head(" folded: x"),
        head("X-A: a\x00b"),
        b"POST /v2\xff HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_message_that_two_servers_could_read_differently_is_refused(sent: bytes) -> None:
    async with gateway(upstream := FakeUpstream()) as connect:
        client = await connect()
        await client.send(sent)
        reply = await client.reply()
        assert reply.status in (400, 413), reply
        if reply.status == 400:
            assert await client.is_closed()
        assert upstream.calls == []


async def test_trailers_are_no_headers() -> None:
    async with gateway(upstream := FakeUpstream()) as connect:
        client = await connect()
        chunked = b"d\r\n" + BODY + b"\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n"
        await client.send(head("Transfer-Encoding: chunked") + chunked)
        assert (await client.reply()).status == 200
        assert upstream.calls[0][0].metadata == ()


async def test_body_that_is_too_large_is_413_and_not_read_on_for_ever() -> None:
    async with gateway(max_body_bytes=100_000) as connect:
        client = await connect()
        await client.send(head("Content-Length: 1000000000") + b"x" * 1000)
        assert (await client.reply()).status == 413
        client.writer.write(b"x" * 1_000_000)
        assert await client.is_closed()


async def test_body_just_over_the_limit_is_413_and_the_connection_goes_on() -> None:
    async with gateway(max_body_bytes=1000) as connect:
        client = await connect()
        await client.send(request(b"x" * 1500))
        assert (await client.reply()).status == 413
        await client.send(request())
        assert (await client.reply()).status == 200


async def test_chunked_body_counts_what_it_holds() -> None:
    async with gateway(max_body_bytes=1000) as connect:
        client = await connect()
        await client.send(head("Transfer-Encoding: chunked") + b"400\r\n" + b"x" * 1024)
        assert (await client.reply()).status == 413


@pytest.mark.parametrize("extension", [b";" + b"e" * 200, b";a=" + b"b" * 1000])
async def test_chunks_that_are_all_frame_are_refused(extension: bytes) -> None:
    async with gateway(upstream := FakeUpstream()) as connect:
        client = await connect()
        await client.send(head("Transfer-Encoding: chunked"))
        client.writer.write((b"1" + extension + b"\r\nx\r\n") * 2000)
        assert (await client.reply()).status == 400
        assert upstream.calls == []


async def test_chunks_of_one_byte_are_read() -> None:
    async with gateway() as connect:
        client = await connect()
        body = BODY + b" " * 20_000
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        await client.send(head("Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
        assert (await client.reply()).status == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with gateway() as connect:
        client = await connect()
        bodies = [b'{"inputs":[],"id":"%d"}' % number for number in range(50)]
        await client.send(b"".join(request(body) for body in bodies))
        replies = [await client.reply() for _ in bodies]
        assert [json.loads(each.body)["id"] for each in replies] == [str(n) for n in range(50)]


async def test_garbage_behind_a_request_under_way_is_no_second_answer() -> None:
    async with gateway(_Blocked()) as connect:
        client = await connect()
        await client.send(request() + b"\x00garbage\r\n\r\n")
        assert (await client.reader.read()).count(b"HTTP/1.1 ") <= 1


async def test_connections_are_limited() -> None:
    async with gateway(max_connections=2) as connect:
        held = [await connect() for _ in range(2)]
        await held[1].send(request())
        assert (await held[1].reply()).status == 200  # both have arrived
        over = await connect()
        refused = await over.reply()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert await over.is_closed()
        await held[0].send(request())
        assert (await held[0].reply()).status == 200
        held[0].writer.close()
        held[1].writer.close()
        await asyncio.gather(*(each.writer.wait_closed() for each in held))


async def test_expected_body_is_asked_for_and_a_refusal_closes() -> None:
    async with gateway(max_body_bytes=1000) as connect:
        client = await connect()
        await client.send(head(f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        async with asyncio.timeout(30):
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BODY)
        assert (await client.reply()).status == 200
        await client.send(head("Content-Length: 5000", "Expect: 100-continue"))
        assert (await client.reply()).status == 413
        assert await client.is_closed()


async def test_upgrade_is_not_taken() -> None:
    async with gateway() as connect:
        client = await connect()
        upgrade = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"]
        await client.send(head(*upgrade, verb="GET", path="/v2/health/live") + b"\x00\x01")
        assert (await client.reply()).status == 200
        assert await client.is_closed()


class _Blocked(FakeUpstream):
    """Says when a call arrives and when it is cancelled; never answers."""

    def __init__(self) -> None:
        super().__init__({"ModelMetadata": metadata(X=("INT32", [-1])), "ModelInfer": echo})
        self.arrived, self.cancelled = asyncio.Event(), asyncio.Event()

    async def unary(self, call: Call, message: bytes) -> bytes:
        if call.rpc != "ModelInfer":
            return await super().unary(call, message)
        return await self._wait()

    async def stream(self, call: Call, message: bytes) -> AsyncGenerator[bytes, None]:
        yield response(Y=1).SerializeToString()
        yield await self._wait()

    async def _wait(self) -> bytes:
        self.arrived.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.mark.parametrize("route", ["infer", "generate_stream"])
async def test_client_that_leaves_cancels_its_call(route: str) -> None:
    async with gateway(upstream := _Blocked()) as connect:
        client = await connect()
        body = BODY if route == "infer" else b'{"X":1}'
        await client.send(head(f"Content-Length: {len(body)}", path=f"/v2/models/m/{route}") + body)
        async with asyncio.timeout(30):
            await upstream.arrived.wait()
            client.writer.transport.abort()
            await upstream.cancelled.wait()


async def test_client_of_pipelined_requests_that_leaves_is_no_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with gateway(upstream := _Blocked()) as connect:
        client = await connect()
        await client.send(request() * 3)
        async with asyncio.timeout(30):
            await upstream.arrived.wait()
            client.writer.transport.abort()
            await upstream.cancelled.wait()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


class _Endless(_Blocked):
    """A stream without an end, of 64 KiB a response; counts what was taken of it."""

    taken = 0

    async def stream(self, call: Call, message: bytes) -> AsyncGenerator[bytes, None]:
        try:
            data = response(Y=list(range(16384))).SerializeToString()
            while True:
                self.taken += 1
                yield data
        finally:
            self.cancelled.set()


async def test_client_that_does_not_read_stops_its_stream_and_is_sent_away() -> None:
    async with gateway(upstream := _Endless(), write_timeout_s=0.3) as connect:
        client = await connect()
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.reader._transport.pause_reading()
        body = b'{"X":1}'
        path = "/v2/models/m/generate_stream"
        await client.send(head(f"Content-Length: {len(body)}", path=path) + body)
        async with asyncio.timeout(30):
            await upstream.cancelled.wait()
        assert upstream.taken < 500  # what sockets hold, not what the model makes
