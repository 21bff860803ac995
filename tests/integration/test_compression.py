"""Compressed messages on the wire, frame by frame: what is inflated, deflated and refused."""

import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from tests.support import raw_http2 as http2
from tests.support.fixture_models import write_identity
from tests.support.raw_grpc import RawClient
from tests.support.requests import identity_request
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

VALUES = [float(each % 8) for each in range(4000)]
CONTENTS = struct.pack("<4000f", *VALUES)
REQUEST = identity_request(VALUES).SerializeToString()
METADATA = "/inference.GRPCInferenceService/ServerMetadata"

DEFLATE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.compress(data, wbits=31),
    "deflate": zlib.compress,
}
INFLATE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.decompress(data, wbits=31),
    "deflate": zlib.decompress,
}


@asynccontextmanager
async def serve(folder: Path, **settings: object) -> AsyncIterator[RunningServer]:
    """A server with an identity."""
    write_identity(folder)
    async with run_server(server_config(folder, **settings)) as server:
        yield server


async def ask(server: RunningServer, path: str, sent: bytes, headers: dict[str, str]) -> bytes:
    """What a server sends back to one message, up to its trailers."""
    assert server.app.grpc is not None
    async with http2.connection(server.app.grpc.port) as connection:
        await connection.send(http2.PREFACE, http2.frame(http2.SETTINGS, 0, 0))
        await connection.send(http2.headers(1, path, headers), http2.data(1, sent))
        received = b""
        while not http2.trailers(received, 1):
            more = await connection.receive(30)
            assert more, received
            received += more
        return received


def contents_of(path: str, message: bytes) -> bytes:
    """The output in a reply of either RPC."""
    if path == http2.STREAM_INFER:
        reply = wire.ModelStreamInferResponse.FromString(message)
        assert not reply.error_message
        response = reply.infer_response
    else:
        response = wire.ModelInferResponse.FromString(message)
    (contents,) = response.raw_output_contents
    return bytes(contents)


async def check_alive(client: RawClient) -> None:
    assert contents_of(http2.INFER, await client.unary("ModelInfer", REQUEST)) == CONTENTS


@pytest.mark.parametrize("path", [http2.INFER, http2.STREAM_INFER])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_response_is_compressed_for_a_client_that_takes_it(
    tmp_path: Path, path: str, encoding: str
) -> None:
    async with serve(tmp_path, grpc_infer_response_compression_level="high") as server:
        accepted = {"grpc-accept-encoding": encoding}
        received = await ask(server, path, http2.message(REQUEST), accepted)
    ((is_compressed, body),) = http2.messages(received, 1)
    assert is_compressed
    assert contents_of(path, INFLATE[encoding](body)) == CONTENTS
    assert len(body) < len(CONTENTS) / 10


@pytest.mark.parametrize("level", ["low", "medium", "high"])
async def test_every_level_compresses(tmp_path: Path, level: str) -> None:
    async with serve(tmp_path, grpc_infer_response_compression_level=level) as server:
        accepted = {"grpc-accept-encoding": "identity,deflate,gzip"}
        received = await ask(server, http2.INFER, http2.message(REQUEST), accepted)
        ((is_compressed, _),) = http2.messages(received, 1)
        assert is_compressed
        async with server.client() as client:
            await check_alive(client)


@pytest.mark.parametrize(
    ("level", "headers"),
    [
        pytest.param("none", {"grpc-accept-encoding": "gzip"}, id="not asked for"),
        pytest.param("high", {}, id="not taken by the client"),
        pytest.param("high", {"grpc-accept-encoding": "identity"}, id="refused by the client"),
    ],
)
async def test_response_is_plain_unless_both_sides_want_it(
    tmp_path: Path, level: str, headers: dict[str, str]
) -> None:
    async with serve(tmp_path, grpc_infer_response_compression_level=level) as server:
        received = await ask(server, http2.INFER, http2.message(REQUEST), headers)
    ((is_compressed, body),) = http2.messages(received, 1)
    assert not is_compressed and contents_of(http2.INFER, body) == CONTENTS


async def test_other_responses_are_plain(tmp_path: Path) -> None:
    async with serve(tmp_path, grpc_infer_response_compression_level="high") as server:
        accepted = {"grpc-accept-encoding": "gzip"}
        received = await ask(server, METADATA, http2.message(b""), accepted)
    ((is_compressed, body),) = http2.messages(received, 1)
    assert not is_compressed and b"classification" in body


@pytest.mark.parametrize("path", [http2.INFER, http2.STREAM_INFER])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_request_is_answered_right(
    tmp_path: Path, path: str, encoding: str
) -> None:
    async with serve(tmp_path) as server:
        sent = http2.message(DEFLATE[encoding](REQUEST), is_compressed=True)
        received = await ask(server, path, sent, {"grpc-encoding": encoding})
    ((is_compressed, body),) = http2.messages(received, 1)
    assert not is_compressed and contents_of(path, body) == CONTENTS


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
    tmp_path: Path, encoding: str, damage: Callable[[bytes], bytes]
) -> None:
    async with serve(tmp_path) as server, server.client() as client:
        for rpc in ("ModelInfer", "ServerMetadata"):  # in the core's lane and in Python's
            sent = http2.message(damage(DEFLATE[encoding](REQUEST)), is_compressed=True)
            path = f"/inference.GRPCInferenceService/{rpc}"
            received = await ask(server, path, sent, {"grpc-encoding": encoding})
            assert not list(http2.messages(received, 1))
            ended = http2.trailers(received, 1)
            assert ended["grpc-status"] == "13"  # INTERNAL
            assert "decompress" in ended["grpc-message"].lower()
        await check_alive(client)
        accepted = server.app.core.infer_stats()["accepted"]
    assert accepted == 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_small_message_that_inflates_over_the_limit_is_resource_exhausted(
    tmp_path: Path, compression: grpc.Compression
) -> None:
    async with serve(tmp_path, max_message_bytes=1 << 20) as server, server.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary("ModelInfer", bytes(64 << 20), compression=compression)
        await check_alive(client)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
