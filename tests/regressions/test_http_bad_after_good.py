"""Bytes that are no HTTP behind a request being answered: no traceback, one connection closed."""

import asyncio
import logging

import pytest
from tests.support.http import ask

from penstock.frontend.http import metrics_routes
from penstock.frontend.http_server import HttpServer

pytestmark = pytest.mark.any_transport

HEAD = b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD_CHUNK = b"zz\r\n"


async def exchange(port: int, *parts: bytes) -> bytes:
    """Sends the parts, each after the one before was answered; everything that came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    for number, part in enumerate(parts):
        received += await reader.readuntil(b"\r\n\r\n") if number else b""
        writer.write(part)
    received += await reader.read()
    writer.close()
    return received


@pytest.mark.parametrize("parts", [(HEAD + BAD_CHUNK,), (HEAD, BAD_CHUNK)])
async def test_bad_chunk_closes_the_connection_without_a_traceback(
    parts: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    server = HttpServer(metrics_routes(lambda: ("text/plain", b"up 1\n")), "127.0.0.1", 0, "m")
    server.bind()
    await server.start()
    try:
        received = await exchange(server.port, *parts)
        assert received.count(b"HTTP/1.1") <= 1
        assert (await ask(server.port, "/metrics")).body == b"up 1\n"
    finally:
        await server.stop()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
