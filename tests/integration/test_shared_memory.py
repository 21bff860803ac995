"""System shared memory on the wire: clients that shrink it, forget it, or lie about it."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from tests.support.fixture_models import write_blocked, write_identity
from tests.support.raw_grpc import RawClient, raw_client
from tests.support.requests import identity_request, tensor
from tests.support.run_server import ServerProcess, serve_process
from tritonclient.grpc import service_pb2 as wire

ALLOWED = "--allow-client-shm=true"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
OK = grpc.StatusCode.OK
PATIENCE_S = 60
MAX_REGIONS = 512
TWO_ROWS = "max_batch_size: 2\ndynamic_batching { max_queue_delay_microseconds: 60000000 }"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    models = tmp_path / "models"
    write_identity(models)
    write_identity(models, "words", datatype="BYTES")
    write_identity(models, "pair", config=TWO_ROWS)
    write_blocked(models, tmp_path / "gate")
    flags = ["--shutdown-grace-secs", "0", "--max-message-bytes", "65536"]
    async with serve_process(models, ALLOWED, *flags) as running:
        yield running


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[RawClient]:
    async with raw_client(server.addresses["gRPC"]) as connected:
        yield connected


@contextmanager
def memory(size: int = 64) -> Iterator[str]:
    """The path of an object of shared memory."""
    path = f"/dev/shm/penstock-test-{uuid4().hex}"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        os.truncate(path, size)
        yield path
    finally:
        os.unlink(path)


def write(path: str, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(data)


def read(path: str, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read()[offset : offset + size]


def key_of(path: str) -> str:
    return path.removeprefix("/dev/shm")


def open_files(server: ServerProcess, path: str) -> int:
    """How many of the server's files are this one."""
    folder = Path(f"/proc/{server.pid}/fd")
    return sum(os.path.realpath(entry).startswith(path) for entry in folder.iterdir())


async def register(client: RawClient, path: str, name: str = "r", size: int = 64) -> None:
    request = wire.SystemSharedMemoryRegisterRequest(name=name, key=key_of(path), byte_size=size)
    await client.unary("SystemSharedMemoryRegister", request.SerializeToString())


async def unregister(client: RawClient, name: str = "") -> None:
    request = wire.SystemSharedMemoryUnregisterRequest(name=name)
    await client.unary("SystemSharedMemoryUnregister", request.SerializeToString())


def place(parameters: Any, size: int, offset: int = 0) -> None:
    parameters["shared_memory_region"].string_param = "r"
    parameters["shared_memory_byte_size"].int64_param = size
    parameters["shared_memory_offset"].int64_param = offset


def shared_request(values: int = 2, **changes: Any) -> Any:
    """A row of so many FP32 at the beginning of the region."""
    request = identity_request([0.0] * values, raw_input_contents=[], **changes)
    place(request.inputs[0].parameters, 4 * values)
    return request


async def refusal(client: RawClient, request: Any, rpc: str = "ModelInfer") -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.unary(rpc, request.SerializeToString())
    return caught.value.code(), caught.value.details()


async def answer(client: RawClient, request: Any) -> Any:
    reply = await client.unary("ModelInfer", request.SerializeToString())
    return wire.ModelInferResponse.FromString(reply)


async def test_disabled_unless_the_operator_allows_it(tmp_path: Path) -> None:
    write_identity(tmp_path)
    async with serve_process(tmp_path) as plain, raw_client(plain.addresses["gRPC"]) as client:
        text = "Client shared memory is disabled. Start the server with '--allow-client-shm=true'"
        for rpc in (
            *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister"),
            *("SystemSharedMemoryUnregister", "CudaSharedMemoryStatus"),
            *("CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
        ):
            code, found = await refusal(client, getattr(wire, f"{rpc}Request")(), rpc)
            assert code is grpc.StatusCode.UNIMPLEMENTED
            assert found == f"{text} to enable."
        code, found = await refusal(client, shared_request())
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert text in found


async def test_memory_that_shrank_fails_its_request_and_not_its_batch(client: RawClient) -> None:
    with memory() as path:
        await register(client, path)
        os.truncate(path, 7)
        whole = asyncio.ensure_future(
            client.unary(
                "ModelInfer", identity_request([1.0, 2.0], model="pair").SerializeToString()
            )
        )
        code, text = await refusal(client, shared_request(model="pair"))
        assert code is INVALID
        assert text == (
            "input 'INPUT0' for model 'pair': shared memory region 'r' has become too small: "
            "expected 8 bytes, got 7"
        )
        reply = wire.ModelInferResponse.FromString(await whole)
        assert reply.raw_output_contents == [struct.pack("<2f", 1.0, 2.0)]


async def test_output_that_no_longer_fits_does_not_enlarge_the_memory(client: RawClient) -> None:
    request = identity_request([1.0, 2.0])
    place(request.outputs.add(name="OUTPUT0").parameters, 8, 4)
    with memory() as path:
        await register(client, path)
        os.truncate(path, 5)
        code, text = await refusal(client, request)
        assert code is INVALID
        assert "output 'OUTPUT0' of model 'identity': shared memory region 'r'" in text
        assert len(read(path, 0, 64)) == 5


async def test_region_that_is_unregistered_in_use_serves_on_and_is_then_closed(
    server: ServerProcess, client: RawClient, tmp_path: Path
) -> None:
    request = shared_request(model="blocked")
    place(request.outputs.add(name="OUTPUT0").parameters, 8, 8)
    with memory() as path:
        write(path, struct.pack("<2f", 3.0, 4.0))
        await register(client, path)
        stream = client.stream()
        await stream.write(request.SerializeToString())
        await stream.write(identity_request([1.0]).SerializeToString())
        await answered(client, "identity")  # so the one before it is under way
        await unregister(client)
        code, text = await refusal(client, shared_request())
        assert code is grpc.StatusCode.NOT_FOUND
        assert text.startswith("Unable to find shared memory region: 'r'")
        assert open_files(server, path) == 1
        (tmp_path / "gate").touch()
        reply = wire.ModelStreamInferResponse.FromString(await stream.read())
        assert reply.error_message == ""
        assert reply.infer_response.raw_output_contents == [b""]
        await closed(server, client, path)
        assert read(path, 8, 8) == struct.pack("<2f", 3.0, 4.0)
        stream.cancel()


async def closed(server: ServerProcess, client: RawClient, path: str) -> None:
    """Returns once the server has the file open no more."""
    async with asyncio.timeout(PATIENCE_S):
        while open_files(server, path):
            await client.unary("ServerLive")


async def answered(client: RawClient, model: str) -> None:
    """Returns once the model has answered a request."""
    ask = wire.ModelStatisticsRequest(name=model).SerializeToString()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            reply = await client.unary("ModelStatistics", ask)
            statistics = wire.ModelStatisticsResponse.FromString(reply).model_stats[0]
            if statistics.inference_stats.success.count:
                return


async def test_contents_beside_shared_memory_are_refused(client: RawClient) -> None:
    with memory() as path:
        await register(client, path)
        typed = shared_request()
        typed.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
        code, text = await refusal(client, typed)
        assert code is INVALID
        expected = "unexpected 'content' provided when using shared memory for input tensor"
        assert text == f"{expected} 'INPUT0' for model 'identity'"
        raw = shared_request()
        raw.raw_input_contents.append(bytes(8))
        code, text = await refusal(client, raw)
        assert code is INVALID
        assert text.startswith("expected 0 entries in raw_input_contents")


async def test_text_that_lies_is_refused_with_its_reason(client: RawClient) -> None:
    request = wire.ModelInferRequest(model_name="words")
    request.inputs.append(tensor("INPUT0", "BYTES", [1, 1]))
    place(request.inputs[0].parameters, 8)
    with memory() as path:
        write(path, struct.pack("<I", 0xFFFFFFFF))
        await register(client, path)
        code, text = await refusal(client, request)
        assert code is INVALID
        assert "expecting string of length 4294967295 but only 4 bytes available" in text


async def test_inputs_over_the_message_limit_are_refused_unread(client: RawClient) -> None:
    with memory(1 << 40) as path:  # sparse: what it claims and not what it holds
        await register(client, path, size=1 << 40)
        code, text = await refusal(client, shared_request(values=1 << 16))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "262144 bytes in shared memory for 'identity' exceed the limit of 65536" in text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"byte_size": 65}, "offset 0 and byte size 65 reach beyond the 64 bytes"),
        ({"offset": 64, "byte_size": 1}, "reach beyond"),
        ({"byte_size": 0}, "the byte size is 0"),
        ({"offset": 2**64 - 1, "byte_size": 2}, "are out of range"),
        ({"key": "/../etc/passwd"}, "a key is '/' and a file name"),
        ({"key": ""}, "a key is '/' and a file name"),
        ({"name": ""}, "the name must have 1 to 1024 bytes, got 0"),
        ({"name": "n" * 30_000}, "the name must have 1 to 1024 bytes, got 30000"),
    ],
)
async def test_registration_that_cannot_be_is_refused(
    client: RawClient, fields: dict[str, Any], text: str
) -> None:
    with memory() as path:
        request = wire.SystemSharedMemoryRegisterRequest(
            **{"name": "r", "key": key_of(path), "byte_size": 64, **fields}
        )
        code, found = await refusal(client, request, "SystemSharedMemoryRegister")
        assert code is INVALID
        assert found.startswith("failed to register shared memory region")
        assert text in found


async def test_regions_are_limited(server: ServerProcess, client: RawClient) -> None:
    with memory() as path:
        for number in range(MAX_REGIONS):
            await register(client, path, f"r{number}")
        request = wire.SystemSharedMemoryRegisterRequest(name="r", key=key_of(path), byte_size=64)
        code, text = await refusal(client, request, "SystemSharedMemoryRegister")
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text.endswith(f"{MAX_REGIONS} are open, which is the limit")
        assert open_files(server, path) == MAX_REGIONS
        await unregister(client)
        assert open_files(server, path) == 0
