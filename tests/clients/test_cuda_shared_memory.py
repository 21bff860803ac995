"""tritonclient with tensors in the memory of GPUs, over gRPC and HTTP.

The server's GPUs are fake: what a client exports is an object of POSIX shared memory, and its
handle that object's key. All else is as it is with real ones.
"""

import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import pytest
from tests.support.fixture_models import WITH_FAKE_GPUS
from tests.support.models import onnx_files
from tests.support.server_process import Served, served
from tests.support.triton_clients import FACES, simple_inputs, triton_client
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.grpc import service_pb2 as wire
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

HANDLE_BYTES = 64
NUMBERS = np.arange(16, dtype=np.int32)
ALLOW = "--allow-client-shm=true"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_all(repository)
    with served(repository, ALLOW, environment=WITH_FAKE_GPUS) as started:
        yield started


@pytest.fixture(params=[*FACES, "http"])
def client(server: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "http":
        with triton_http.InferenceServerClient(server.http) as connected:
            yield connected
            connected.unregister_cuda_shared_memory()
        return
    with triton_client(request.param, server.grpc) as connected:
        yield connected
        connected.unregister_cuda_shared_memory()


@contextmanager
def device_memory(contents: bytes) -> Iterator[tuple[bytes, Path]]:
    """Memory of a fake GPU: its handle as the wire has it, and where to look into it."""
    path = Path("/dev/shm", f"penstock-test-{uuid4().hex}")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        path.write_bytes(contents)
        yield b64encode(f"/{path.name}".encode().ljust(HANDLE_BYTES, b"\0")), path
    finally:
        path.unlink()


def infer(client: Any, region: str) -> Any:
    """`simple` with INPUT0 at the begin of the region and OUTPUT0 behind it."""
    face = triton_http if isinstance(client, triton_http.InferenceServerClient) else triton_grpc
    made = face.InferInput("INPUT0", [1, 16], "INT32")
    made.set_shared_memory(region, 64)
    plain = face.InferInput("INPUT1", [1, 16], "INT32")
    plain.set_data_from_numpy(np.ones((1, 16), np.int32))
    output = face.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory(region, 64, offset=64)
    return client.infer("simple", [made, plain], outputs=[output])


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call(*args)
    return str(caught.value.message())


def test_input_is_read_and_output_written_where_they_lie(client: Any) -> None:
    with device_memory(NUMBERS.tobytes() + bytes(64)) as (handle, path):
        client.register_cuda_shared_memory("r", handle, 1, 128)
        infer(client, "r")
        written = np.frombuffer(path.read_bytes()[64:], np.int32)
        np.testing.assert_array_equal(written, NUMBERS + 1)


def test_regions_are_listed_and_forgotten(client: Any) -> None:
    with device_memory(bytes(128)) as (handle, _), device_memory(bytes(8)) as (other, _):
        client.register_cuda_shared_memory("r", handle, 1, 128)
        client.register_cuda_shared_memory("s", other, 0, 8)
        assert listed(client) == [("r", 1, 128), ("s", 0, 8)]
        assert listed(client, "s") == [("s", 0, 8)]
        client.unregister_cuda_shared_memory("r")
        assert listed(client) == [("s", 0, 8)]
        assert "Unable to find shared memory region: 'r'" in refusal(infer, client, "r")
        client.unregister_cuda_shared_memory()
        assert listed(client) == []
        unknown = "Unable to find cuda shared memory region: 's'"
        assert refusal(client.get_cuda_shared_memory_status, "s") == unknown


def listed(client: Any, name: str = "") -> list[tuple[str, int, int]]:
    """(name, device_id, byte_size) of what is registered."""
    status = client.get_cuda_shared_memory_status(name)
    if isinstance(status, list):
        return [(each["name"], each["device_id"], each["byte_size"]) for each in status]
    regions = sorted(status.regions.values(), key=lambda each: each.name)
    return [(each.name, each.device_id, each.byte_size) for each in regions]


def test_names_are_shared_with_the_systems_memory(client: Any) -> None:
    with device_memory(bytes(8)) as (handle, path):
        client.register_cuda_shared_memory("r", handle, 0, 8)
        register = client.register_system_shared_memory
        exists = "shared memory region 'r' already in manager"
        assert refusal(register, "r", f"/{path.name}", 8) == exists
        assert refusal(client.register_cuda_shared_memory, "r", handle, 0, 8) == exists
        client.unregister_system_shared_memory()  # of the other kind
        assert listed(client) == [("r", 0, 8)]
        assert refusal(client.get_system_shared_memory_status, "r") == (
            "The region named 'r' is registered as CUDA shared memory, not system shared memory"
        )


@pytest.mark.parametrize(
    ("raw", "device", "size", "text"),
    [
        (b"short", 0, 8, "a handle is a cudaIpcMemHandle_t of 64 bytes, got 5"),
        (b"/penstock-nobody".ljust(64, b"\0"), 0, 8, "the handle cannot be opened on device 0"),
        (None, 2, 8, "expected a device below 2, got 2"),
        (None, -1, 8, "expected a device below 2, got -1"),
        (None, 0, 9, "byte size 9 reaches beyond the 8 bytes of its memory"),
        (None, 0, 0, "the byte size is 0"),
    ],
)
def test_registration_that_cannot_be_is_refused(
    client: Any, raw: bytes | None, device: int, size: int, text: str
) -> None:
    with device_memory(bytes(8)) as (handle, _):
        given = handle if raw is None else b64encode(raw)
        found = refusal(client.register_cuda_shared_memory, "r", given, device, size)
        assert found.startswith("failed to register shared memory region 'r': invalid args: ")
        assert text in found
        assert listed(client) == []


def test_tensor_beyond_its_region_is_refused(client: Any) -> None:
    with device_memory(NUMBERS.tobytes() + bytes(64)) as (handle, _):
        client.register_cuda_shared_memory("r", handle, 0, 64)
        assert "Invalid offset for shared memory region: 'r'" in refusal(infer, client, "r")


def test_extension_is_advertised(client: Any) -> None:
    metadata = client.get_server_metadata()
    names = metadata["extensions"] if isinstance(metadata, dict) else metadata.extensions
    assert "cuda_shared_memory" in names


def test_stream_reads_and_writes_the_memory_of_a_gpu(server: Served) -> None:
    replies: list[Any] = []
    with device_memory(NUMBERS.tobytes() + bytes(64)) as (handle, path):
        with triton_grpc.InferenceServerClient(server.grpc) as client:
            client.register_cuda_shared_memory("r", handle, 0, 128)
            client.start_stream(lambda result, error: replies.append(error or result))
            made = triton_grpc.InferInput("INPUT0", [1, 16], "INT32")
            made.set_shared_memory("r", 64)
            wanted = triton_grpc.InferRequestedOutput("OUTPUT0")
            wanted.set_shared_memory("r", 64, offset=64)
            client.async_stream_infer("simple", [made, simple_inputs()[1]], outputs=[wanted])
            client.stop_stream()
            assert list(replies[0].get_response().raw_output_contents) == [b""]
            written = np.frombuffer(path.read_bytes()[64:], np.int32)
            np.testing.assert_array_equal(written, NUMBERS + 1)
            client.unregister_cuda_shared_memory()


@pytest.mark.parametrize("has_gpu", [False, True])
def test_without_the_flag_it_is_disabled(tmp_path: Path, has_gpu: bool) -> None:
    onnx_files.write_all(tmp_path)
    with served(tmp_path, environment=WITH_FAKE_GPUS if has_gpu else None) as server:
        with triton_grpc.InferenceServerClient(server.grpc) as client:
            for call, *args in (
                (client.get_cuda_shared_memory_status,),
                (client.register_cuda_shared_memory, "r", b64encode(bytes(64)), 0, 8),
                (client.unregister_cuda_shared_memory,),
                (infer, client, "r"),
            ):
                assert "Client shared memory is disabled." in refusal(call, *args)
            assert "cuda_shared_memory" not in client.get_server_metadata().extensions


def test_driver_that_does_not_close_holds_up_nothing_but_memory_of_gpus(tmp_path: Path) -> None:
    models, closes = tmp_path / "models", tmp_path / "closes"
    models.mkdir()
    os.mkfifo(closes)
    environment = {**WITH_FAKE_GPUS, "FAKE_DRIVER_CLOSES": str(closes)}
    with (
        served(models, ALLOW, environment=environment) as server,
        triton_grpc.InferenceServerClient(server.grpc) as client,
        grpc.insecure_channel(server.grpc) as channel,
        device_memory(bytes(8)) as (handle, path),
    ):
        stub = GRPCInferenceServiceStub(channel)
        client.register_cuda_shared_memory("r", handle, 0, 8)
        unregister = stub.CudaSharedMemoryUnregister
        pending = [unregister.future(wire.CudaSharedMemoryUnregisterRequest()) for _ in range(40)]
        with closes.open("w"):  # once the driver is about it, which it then is until the end
            client.register_system_shared_memory("s", f"/{path.name}", 8, client_timeout=PATIENCE_S)
            client.unregister_system_shared_memory("s", client_timeout=PATIENCE_S)
            client.get_server_metadata(client_timeout=PATIENCE_S)
            assert not any(call.done() for call in pending)
        for call in pending:
            call.result(timeout=PATIENCE_S)
