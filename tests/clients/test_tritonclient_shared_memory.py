"""tritonclient with tensors in the system's shared memory, sync and aio, by its own utilities."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from tests.support.fixture_models import write_blocked, write_identity
from tests.support.models import onnx_files
from tests.support.server_process import served
from tests.support.triton_clients import FACES, simple_inputs, tensor, triton_client
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, serialize_byte_tensor
from tritonclient.utils import shared_memory as shm

PATIENCE_S = 60.0
ALLOWED = "--allow-client-shm=true"
NUMBERS = ["BOOL", "UINT8", "INT16", "UINT64", "FP16", "FP32", "FP64"]
NUMPY = {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
DISABLED = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_all(repository)
    with served(repository, ALLOWED) as server:
        yield server.grpc


@pytest.fixture(params=FACES)
def client(url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with triton_client(request.param, url) as connected:
        yield connected
        connected.unregister_system_shared_memory()


@contextmanager
def memory(size: int) -> Iterator[Any]:
    """An object of shared memory, and its key."""
    handle = shm.create_shared_memory_region("unused", f"/penstock-{uuid4().hex}", size)
    try:
        yield handle
    finally:
        shm.destroy_shared_memory_region(handle)


@contextmanager
def region(client: Any, name: str, size: int) -> Iterator[Any]:
    """The same, registered under `name`."""
    with memory(size) as handle:
        client.register_system_shared_memory(name, handle._shm_key, size)
        yield handle
        client.unregister_system_shared_memory(name)


def contents(handle: Any, dtype: Any, shape: Any, offset: int = 0) -> Any:
    """What lies there, copied: a view would keep the object from being closed."""
    return np.copy(shm.get_contents_as_numpy(handle, dtype, shape, offset))


def shared_input(
    name: str, shape: list[int], datatype: str, where: str, size: int, offset: int = 0
) -> InferInput:
    made = InferInput(name, shape, datatype)
    made.set_shared_memory(where, size, offset)
    return made


def shared_output(name: str, where: str, size: int, offset: int = 0) -> InferRequestedOutput:
    made = InferRequestedOutput(name)
    made.set_shared_memory(where, size, offset)
    return made


def refusal(call: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    """Status and text with which a call is refused."""
    with pytest.raises(InferenceServerException) as caught:
        call(*args, **kwargs)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_inputs_and_outputs_of_simple(client: Any) -> None:
    numbers, ones = np.arange(16, dtype=np.int32), np.ones(16, np.int32)
    with region(client, "inputs", 128) as inputs, region(client, "outputs", 128) as outputs:
        shm.set_shared_memory_region(inputs, [numbers, ones])
        result = client.infer(
            "simple",
            [
                shared_input("INPUT0", [1, 16], "INT32", "inputs", 64),
                shared_input("INPUT1", [1, 16], "INT32", "inputs", 64, 64),
            ],
            outputs=[
                shared_output("OUTPUT0", "outputs", 64),
                shared_output("OUTPUT1", "outputs", 64, 64),
            ],
        )
        response = result.get_response()
        assert list(response.raw_output_contents) == [b"", b""]
        described = [(each.name, each.datatype, list(each.shape)) for each in response.outputs]
        assert described == [("OUTPUT0", "INT32", [1, 16]), ("OUTPUT1", "INT32", [1, 16])]
        assert not response.outputs[0].parameters
        np.testing.assert_array_equal(contents(outputs, np.int32, (16,)), numbers + 1)
        np.testing.assert_array_equal(contents(outputs, np.int32, (16,), 64), numbers - 1)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_kind_of_number_comes_back(client: Any, datatype: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(NUMPY.get(datatype, datatype.lower()))
    size = array.nbytes
    with region(client, "r", 2 * size) as handle:
        shm.set_shared_memory_region(handle, [array])
        made = shared_input("INPUT0", [2, 3], datatype, "r", size)
        wanted = shared_output("OUTPUT0", "r", size, size)
        client.infer(f"identity_{datatype.lower()}", [made], outputs=[wanted])
        np.testing.assert_array_equal(contents(handle, array.dtype, (2, 3), size), array)


def test_text_comes_back(client: Any) -> None:
    array = np.array([[b"\0\xff", b"", b"x" * 5000]], object)
    packed = serialize_byte_tensor(array)
    size = len(packed.item())
    with region(client, "in", size) as given, region(client, "out", size + 100) as taken:
        shm.set_shared_memory_region(given, [packed])
        made = shared_input("INPUT0", [1, 3], "BYTES", "in", size)
        result = client.infer(
            "identity_bytes", [made], outputs=[shared_output("OUTPUT0", "out", size + 100)]
        )
        shape = list(result.get_output("OUTPUT0").shape)
        assert shm.get_contents_as_numpy(taken, np.object_, shape).tolist() == array.tolist()


def test_one_tensor_here_and_the_other_in_the_message(client: Any) -> None:
    with region(client, "r", 64) as handle:
        shm.set_shared_memory_region(handle, [np.arange(16, dtype=np.int32)])
        made = shared_input("INPUT0", [1, 16], "INT32", "r", 64)
        result = client.infer("simple", [made, simple_inputs()[1]])
        assert result.as_numpy("OUTPUT0").tolist() == [list(range(1, 17))]
        outputs = [InferRequestedOutput("OUTPUT1"), shared_output("OUTPUT0", "r", 64)]
        result = client.infer("simple", simple_inputs(), outputs=outputs)
        assert result.as_numpy("OUTPUT1").tolist() == [list(range(-1, 15))]
        assert contents(handle, np.int32, (16,)).tolist() == list(range(1, 17))


def test_region_may_begin_inside_its_object(client: Any) -> None:
    row = np.array([[1.5, -2.5]], np.float32)
    with memory(32) as handle:
        client.register_system_shared_memory("r", handle._shm_key, 24, offset=8)
        shm.set_shared_memory_region(handle, [row], offset=12)
        made = shared_input("INPUT0", [1, 2], "FP32", "r", 8, 4)
        result = client.infer("identity_fp32", [made])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), row)


def test_tensor_without_elements(client: Any) -> None:
    with region(client, "r", 8):
        made = shared_input("INPUT0", [2, 0], "FP32", "r", 0)
        result = client.infer("identity_fp32", [made], outputs=[shared_output("OUTPUT0", "r", 0)])
        assert list(result.get_output("OUTPUT0").shape) == [2, 0]


def test_status_lists_what_is_registered(client: Any) -> None:
    with region(client, "a", 64) as handle:
        client.register_system_shared_memory("b", handle._shm_key, 16, offset=8)
        regions = client.get_system_shared_memory_status(as_json=True)["regions"]
        assert set(regions) == {"a", "b"}
        assert regions["b"] == {
            "name": "b",
            "key": handle._shm_key,
            "offset": "8",
            "byte_size": "16",
        }
        assert set(client.get_system_shared_memory_status("a").regions) == {"a"}
        client.unregister_system_shared_memory("a")
        client.unregister_system_shared_memory("a")
        text = "Unable to find system shared memory region: 'a'"
        assert refusal(client.get_system_shared_memory_status, "a") == ("NOT_FOUND", text)
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions


def test_registrations_that_cannot_be(client: Any) -> None:
    register = client.register_system_shared_memory
    text = "Unable to open shared memory region: '/nobody'"
    assert refusal(register, "r", "/nobody", 8) == ("INTERNAL", text)
    code, text = refusal(register, "r", "/a/../b", 8)
    assert code == "INVALID_ARGUMENT"
    assert "failed to register shared memory region 'r': invalid args" in text
    with region(client, "r", 64) as handle:
        again = "shared memory region 'r' already in manager"
        assert refusal(register, "r", handle._shm_key, 64) == ("ALREADY_EXISTS", again)
        code, text = refusal(register, "s", handle._shm_key, 64, offset=1)
        assert code == "INVALID_ARGUMENT"
        assert "failed to register shared memory region 's': invalid args" in text


@pytest.mark.parametrize(
    ("size", "offset", "code", "text"),
    [
        (64, 1, "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
        (64, 64, "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r'"),
        (-1, 0, "INVALID_ARGUMENT", "expected >= 0, got -1"),
        (2**63 - 1, 63, "INVALID_ARGUMENT", "Invalid offset + byte size"),
        (60, 0, "INVALID_ARGUMENT", "input byte size mismatch for input 'INPUT0' for model"),
    ],
)
def test_input_that_does_not_fit(client: Any, size: int, offset: int, code: str, text: str) -> None:
    with region(client, "r", 64):
        made = shared_input("INPUT0", [1, 16], "INT32", "r", size, offset)
        found = refusal(client.infer, "simple", [made, simple_inputs()[1]])
        assert found[0] == code
        assert text in found[1]


def test_output_without_room_is_internal(client: Any) -> None:
    with region(client, "r", 64):
        outputs = [shared_output("OUTPUT0", "r", 60)]
        code, text = refusal(client.infer, "simple", simple_inputs(), outputs=outputs)
        assert code == "INTERNAL"
        expected = "shared memory size specified with the request for output 'OUTPUT0' (60 bytes)"
        assert text.startswith(expected + " should be at least 64 bytes to hold the results")


def test_unknown_region_is_not_found(client: Any) -> None:
    made = shared_input("INPUT0", [1, 16], "INT32", "nowhere", 64)
    code, text = refusal(client.infer, "simple", [made, simple_inputs()[1]])
    assert code == "NOT_FOUND"
    assert "Unable to find shared memory region: 'nowhere'" in text


def test_object_that_shrinks_fails_requests_until_it_grows_again(client: Any) -> None:
    row = np.array([[1, 2]], np.float32)
    with region(client, "r", 8) as handle:
        made = shared_input("INPUT0", [1, 2], "FP32", "r", 8)
        path = f"/dev/shm/{handle._shm_key.lstrip('/')}"
        os.truncate(path, 3)
        code, text = refusal(client.infer, "identity_fp32", [made])
        assert code == "INVALID_ARGUMENT"
        assert "input 'INPUT0' for model 'identity_fp32': shared memory region 'r'" in text
        outputs = [shared_output("OUTPUT0", "r", 8)]
        code, text = refusal(
            client.infer, "identity_fp32", [tensor("INPUT0", row, "FP32")], outputs=outputs
        )
        assert "output 'OUTPUT0' of model 'identity_fp32': shared memory region 'r'" in text
        assert os.path.getsize(path) == 3
        os.truncate(path, 8)
        shm.set_shared_memory_region(handle, [row])
        result = client.infer("identity_fp32", [made])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), row)


def test_object_that_was_removed_is_used_on(client: Any) -> None:
    row = np.array([[1, 2]], np.float32)
    with memory(8) as handle:
        client.register_system_shared_memory("r", handle._shm_key, 8)
        shm.set_shared_memory_region(handle, [row])
    result = client.infer("identity_fp32", [shared_input("INPUT0", [1, 2], "FP32", "r", 8)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), row)


def test_cuda_memory_is_listed_as_none_and_refused(client: Any) -> None:
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("r")
    unknown = "Unable to find cuda shared memory region: 'r'"
    assert refusal(client.get_cuda_shared_memory_status, "r") == ("NOT_FOUND", unknown)
    text = "failed to register CUDA shared memory region: 'r', GPUs not supported: "
    code, found = refusal(client.register_cuda_shared_memory, "r", b"aGFuZGxl", 0, 64)
    assert code == "INVALID_ARGUMENT"
    assert found.startswith(text)


def test_extension_is_advertised(client: Any) -> None:
    extensions = client.get_server_metadata().extensions
    assert "system_shared_memory" in extensions
    assert "cuda_shared_memory" not in extensions


def test_stream_reads_and_writes_shared_memory(url: str) -> None:
    replies: list[Any] = []
    numbers = np.arange(16, dtype=np.int32)
    with InferenceServerClient(url) as client, region(client, "r", 128) as handle:
        shm.set_shared_memory_region(handle, [numbers])
        client.start_stream(lambda result, error: replies.append(error or result))
        made = shared_input("INPUT0", [1, 16], "INT32", "r", 64)
        wanted = shared_output("OUTPUT0", "r", 64, 64)
        client.async_stream_infer("simple", [made, simple_inputs()[1]], outputs=[wanted])
        lost = shared_input("INPUT0", [1, 16], "INT32", "lost", 64)
        client.async_stream_infer("simple", [lost, simple_inputs()[1]])
        client.stop_stream()
        assert list(replies[0].get_response().raw_output_contents) == [b""]
        np.testing.assert_array_equal(contents(handle, np.int32, (16,), 64), numbers + 1)
        assert "Unable to find shared memory region: 'lost'" in str(replies[1])


def await_answered(client: Any, model: str) -> None:
    """Returns once the model has answered a request."""
    end = time.monotonic() + PATIENCE_S
    while client.get_inference_statistics(model).model_stats[0].inference_stats.success.count == 0:
        assert time.monotonic() < end, f"{model} has not answered in {PATIENCE_S} s"


@pytest.mark.parametrize("face", FACES)
def test_region_unregistered_while_in_use_serves_the_request_it_serves(
    face: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    write_identity(tmp_path / "models")
    row = np.ones((1, 4), np.float32)
    with served(tmp_path / "models", ALLOWED) as server, InferenceServerClient(server.grpc) as busy:
        with triton_client(face, server.grpc) as client, region(client, "r", 32) as handle:
            shm.set_shared_memory_region(handle, [row])
            made = shared_input("INPUT0", [1, 4], "FP32", "r", 16)
            replies: list[Any] = []
            busy.start_stream(lambda result, error: replies.append(error or result))
            wanted = shared_output("OUTPUT0", "r", 16, 16)
            busy.async_stream_infer("blocked", [made], outputs=[wanted])
            busy.async_stream_infer("identity", [tensor("INPUT0", row, "FP32")], request_id="later")
            await_answered(client, "identity")  # read after the one before it
            client.unregister_system_shared_memory()
            assert refusal(client.infer, "identity", [made])[0] == "NOT_FOUND"
            gate.touch()
            busy.stop_stream()
            assert [str(each) for each in replies if isinstance(each, Exception)] == []
            np.testing.assert_array_equal(contents(handle, np.float32, (1, 4), 16), row)


@pytest.mark.parametrize("face", FACES)
def test_disabled_by_default(face: str, tmp_path: Path) -> None:
    write_identity(tmp_path)
    with served(tmp_path) as server, triton_client(face, server.grpc) as client:
        calls: list[tuple[Any, ...]] = [
            (client.get_system_shared_memory_status,),
            (client.register_system_shared_memory, "r", "/k", 8),
            (client.unregister_system_shared_memory,),
            (client.get_cuda_shared_memory_status,),
            (client.register_cuda_shared_memory, "r", b"aGFuZGxl", 0, 8),
            (client.unregister_cuda_shared_memory,),
            (client.infer, "identity", [shared_input("INPUT0", [1, 2], "FP32", "r", 8)]),
        ]
        for call, *args in calls:
            assert refusal(call, *args) == ("UNIMPLEMENTED", DISABLED)
        assert "system_shared_memory" not in client.get_server_metadata().extensions
