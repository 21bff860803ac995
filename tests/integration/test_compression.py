"""Compressed messages on the wire, frame by frame: what is inflated, deflated and refused."""

import zlib
from collections.abc import Callable

import grpc
import pytest
from tests.support import raw_http2 as http2
from tests.support.fake_frontend import serve_frontend
from tests.support.raw_grpc import raw_client

PAYLOAD = b"say it again and " * 1000
LIVE = "/inference.GRPCInferenceService/ServerMetadata"

DEFLATE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.compress(data, wbits=31),
    "deflate": zlib.compress,
}
INFLATE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.decompress(data, wbits=31),
    "deflate": zlib.decompress,
}


async def ask(port: int, path: str, sent: bytes, headers: dict[str, str]) -> bytes:
    """What a server sends back to one message, up to its trailers."""
    async with http2.connection(port) as connection:
        await connection.send(http2.PREFACE, http2.frame(http2.SETTINGS, 0, 0))
        await connection.send(http2.headers(1, path, headers), http2.data(1, sent))
        received = b""
        while b"grpc-status" not in received:
            more = await connection.receive(30)
            assert more, received
            received += more
        return received


@pytest.mark.parametrize("path", [http2.INFER, http2.STREAM_INFER])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_response_is_compressed_for_a_client_that_takes_it(path: str, encoding: str) -> None:
    async with serve_frontend(grpc_infer_response_compression_level="high") as server:
        port, sent = server.transport.port, http2.message(PAYLOAD)
        received = await ask(port, path, sent, {"grpc-accept-encoding": encoding})
        ((is_compressed, body),) = http2.messages(received, 1)
    assert is_compressed and b"grpc-encoding" in received
    assert INFLATE[encoding](body) == b"reply to " + PAYLOAD
    assert len(body) < len(PAYLOAD) / 10


@pytest.mark.parametrize("level", ["low", "medium", "high"])
async def test_every_level_compresses(level: str) -> None:
    async with serve_frontend(grpc_infer_response_compression_level=level) as server:
        accepted = {"grpc-accept-encoding": "identity,deflate,gzip"}
        sent = http2.message(PAYLOAD)
        received = await ask(server.transport.port, http2.INFER, sent, accepted)
        ((is_compressed, _),) = http2.messages(received, 1)
        assert is_compressed
        async with raw_client(server.address) as client:
            assert await client.unary("ModelInfer", PAYLOAD) == b"reply to " + PAYLOAD


@pytest.mark.parametrize(
    ("level", "headers"),
    [
        pytest.param("none", {"grpc-accept-encoding": "gzip"}, id="not asked for"),
        pytest.param("high", {}, id="not taken by the client"),
        pytest.param("high", {"grpc-accept-encoding": "identity"}, id="refused by the client"),
    ],
)
async def test_response_is_plain_unless_both_sides_want_it(
    level: str, headers: dict[str, str]
) -> None:
    async with serve_frontend(grpc_infer_response_compression_level=level) as server:
        sent = http2.message(PAYLOAD)
        received = await ask(server.transport.port, http2.INFER, sent, headers)
    assert list(http2.messages(received, 1)) == [(False, b"reply to " + PAYLOAD)]


async def test_other_responses_are_plain() -> None:
    async with serve_frontend(grpc_infer_response_compression_level="high") as server:
        port, sent = server.transport.port, http2.message(b"")
        received = await ask(port, LIVE, sent, {"grpc-accept-encoding": "gzip"})
        ((is_compressed, body),) = http2.messages(received, 1)
    assert not is_compressed and b"classification" in body


@pytest.mark.parametrize("path", [http2.INFER, http2.STREAM_INFER])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_request_is_answered_right(path: str, encoding: str) -> None:
    async with serve_frontend() as server:
        sent = http2.message(DEFLATE[encoding](PAYLOAD), is_compressed=True)
        received = await ask(server.transport.port, path, sent, {"grpc-encoding": encoding})
    assert list(http2.messages(received, 1)) == [(False, b"reply to " + PAYLOAD)]
    assert server.core.asked == [PAYLOAD]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not compressed at all", id="garbage"),
        pytest.param(lambda data: data[:-9], id="cut short"),
        pytest.param(lambda data: data[:20] + b"\xff\xff\xff\xff" + data[24:], id="damaged"),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_corrupt_request_is_an_error_and_the_server_lives(
    encoding: str, damage: Callable[[bytes], bytes]
) -> None:
    async with serve_frontend() as server:
        sent = http2.message(damage(DEFLATE[encoding](PAYLOAD)), is_compressed=True)
        received = await ask(server.transport.port, http2.INFER, sent, {"grpc-encoding": encoding})
        assert b"grpc-status\x0213" in received  # INTERNAL
        assert b"decompress" in received.lower()
        assert not list(http2.messages(received, 1))
        async with raw_client(server.address) as client:
            assert await client.unary("ModelInfer", b"and on") == b"reply to and on"
    assert server.core.asked == [b"and on"]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_small_message_that_inflates_over_the_limit_is_resource_exhausted(
    compression: grpc.Compression,
) -> None:
    async with serve_frontend(max_message_bytes=1 << 20) as server:
        async with raw_client(server.address) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.unary("ModelInfer", bytes(64 << 20), compression=compression)
            assert await client.unary("ModelInfer", b"and on") == b"reply to and on"
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.core.asked == [b"and on"]
