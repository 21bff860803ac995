"""Mutated HTTP: whatever arrives, nothing of it is an error line, and the gateway serves on."""

import asyncio
import logging
import random
from contextlib import suppress

import pytest
from tests.support.fake_upstream import FakeUpstream, metadata, response
from tests.support.http import ask

from penstock.frontend.http_server import HttpServer
from penstock_gateway.app import Gateway
from penstock_gateway.options import Options
from penstock_gateway.protocol import make_protocol

pytestmark = pytest.mark.any_transport

BODY = b'{"inputs":[]}'
SEEDS = [
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 13\r\n\r\n" + BODY,
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: x\r\n\r\nd\r\n" + BODY + b"\r\n0\r\nx: y\r\n\r\n",
    b'POST /v2/models/m/generate_stream HTTP/1.1\r\nHost: t\r\nContent-Length: 7\r\n\r\n{"X":1}',
    b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"GET http://a/v2 HTTP/1.1\r\nHost: t\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: t\r\n\r\n",
    b"HEAD /v2/models/m HTTP/1.0\r\n\r\n",
    b"GET /v2/models/%00%ff%2e%2e/config HTTP/1.1\r\nHost: t\r\n\r\n",
]
PIECES = [b"\r\n", b" ", b"\0", b":", b"0\r\n\r\n", b"\xff", b"Expect: 100-continue\r\n"]
PIECES += [
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
]


def mutant(choices: random.Random) -> bytes:
    data = bytearray(choices.choice(SEEDS) * choices.randint(1, 3))
    for _ in range(choices.randint(0, 6)):
        at = choices.randrange(min(len(data) + 1, 200))
        kind = choices.randrange(3)
        if kind == 0 and at < len(data):
            data[at] = choices.randrange(256)
        elif kind == 1:
            del data[at : at + choices.randint(1, 9)]
        else:
            data[at:at] = choices.choice(PIECES)
    return bytes(data)


async def send(port: int, data: bytes, *, leaves: bool) -> None:
    """Sends it, and leaves at once or waits until the server closes."""
    with suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        if leaves:
            writer.transport.abort()
            return
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()


@pytest.mark.parametrize("count", [600, pytest.param(60_000, marks=pytest.mark.slow)])
async def test_mutated_requests_are_no_errors(count: int, caplog: pytest.LogCaptureFixture) -> None:
    options = Options(header_timeout_s=0.05, body_timeout_s=0.05)
    model = metadata(X=("INT32", [-1]))
    upstream = FakeUpstream({"ModelMetadata": model, "ModelStreamInfer": [response(Y=1)]})
    server = HttpServer(
        Gateway(upstream, options), "127.0.0.1", 0, "HTTP", protocol=make_protocol(options)
    )
    server.bind()
    await server.start()
    room = asyncio.Semaphore(50)
    choices = random.Random(7)

    async def one() -> None:
        async with room:
            await send(server.port, mutant(choices), leaves=choices.random() < 0.2)

    try:
        async with asyncio.timeout(500):
            await asyncio.gather(*(one() for _ in range(count)))
        assert (await ask(server.port, "/v2/health/live")).status == 200
    finally:
        await server.stop()
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert lines == []
