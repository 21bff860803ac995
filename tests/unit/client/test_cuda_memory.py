"""A GPU's memory in the client, on a stand-in for CuPy."""

import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.fake_cupy import (
    CUDARuntimeError,
    FakeCupy,
    InDlpack,
    LikeTorch,
    OnDevice,
)

from penstock_client import (
    CudaMemory,
    InferRequest,
    ProtocolError,
    SharedMemory,
    SharedMemoryError,
    Tensor,
    TensorError,
)
from penstock_client import _operations as operations
from penstock_client._infer import build_request, read_response
from penstock_client._messages import pb


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


@pytest.fixture
def memory(cupy: FakeCupy) -> Iterator[CudaMemory]:
    with CudaMemory.create(64, name="r") as made:
        yield made


def response(datatype: str, shape: list[int]) -> pb.ModelInferResponse:
    output = pb.ModelInferResponse.InferOutputTensor(name="y", datatype=datatype, shape=shape)
    return pb.ModelInferResponse(model_name="m", outputs=[output], raw_output_contents=[b""])


def test_without_cupy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SharedMemoryError, match="needs the package CuPy, .* cupy-cuda13x or"):
        CudaMemory.create(64)


@pytest.mark.parametrize(
    ("devices", "text"), [(0, "CUDA finds no GPU"), (-1, "cudaErrorInsufficientDriver")]
)
def test_without_a_gpu_the_error_says_so(
    devices: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(devices))
    with pytest.raises(SharedMemoryError, match=f"memory of a GPU: {text}"):
        CudaMemory.create(64)


def test_device_or_size_that_cannot_be_is_refused(cupy: FakeCupy) -> None:
    with pytest.raises(SharedMemoryError, match="64 bytes of GPU 1: cudaErrorInvalidDevice"):
        CudaMemory.create(64, device=1)
    with pytest.raises(SharedMemoryError, match="of GPU 0: cudaErrorMemoryAllocation"):
        CudaMemory.create(1 << 40)
    with pytest.raises(SharedMemoryError, match="expected at least 1"):
        CudaMemory.create(0)
    assert not cupy.cuda.runtime.blocks


def test_memory_is_zero_and_shares_no_block_with_others(cupy: FakeCupy) -> None:
    with CudaMemory.create(64) as memory, CudaMemory.create((2 << 20) + 1) as larger:
        assert not memory.array("UINT8", (64,)).any()
        assert cupy.cuda.runtime.sizes == [2 << 20, 4 << 20]
        assert (memory.byte_size, larger.byte_size) == (64, (2 << 20) + 1)
        assert memory.name != larger.name


def test_memory_is_freed_with_the_last_array_on_it(cupy: FakeCupy) -> None:
    memory = CudaMemory.create(64)
    array = memory.array("FP32", (4,))
    memory.close()
    memory.close()
    assert len(cupy.cuda.runtime.blocks) == 1
    array[...] = 1
    del array
    assert not cupy.cuda.runtime.blocks


def test_closed_memory_is_refused(memory: CudaMemory) -> None:
    memory.close()
    with pytest.raises(SharedMemoryError, match="is closed"):
        memory.put(np.zeros(1, np.int8))
    with pytest.raises(SharedMemoryError, match="is closed"):
        memory.array("FP32", (1,))


def managed(values: Any) -> InDlpack:
    """In memory that the driver moves (kDLCUDAManaged)."""
    return InDlpack(values, device=13)


@pytest.mark.parametrize("kind", [OnDevice, InDlpack, LikeTorch, managed, np.asarray])
def test_tensor_is_copied_there_whatever_it_comes_as(
    kind: Any, cupy: FakeCupy, memory: CudaMemory
) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    placed = memory.put(kind(values), 8)
    assert (placed.datatype, placed.shape, placed.offset, placed.end) == ("FP32", (2, 3), 8, 32)
    np.testing.assert_array_equal(memory.array("FP32", (2, 3), 8), values)
    assert cupy.stream.waits == 1  # or the server might read before it is there


def test_tensor_that_is_not_contiguous_arrives_in_order(memory: CudaMemory) -> None:
    values = np.arange(6, dtype=np.int32).reshape(2, 3).T
    placed = memory.put(OnDevice(values))
    assert placed.shape == (3, 2)
    np.testing.assert_array_equal(memory.array("INT32", (3, 2)), values)


def test_dlpack_of_the_host_is_taken_as_an_array_of_the_host(memory: CudaMemory) -> None:
    values = np.arange(3, dtype=np.int64)
    assert memory.put(values).datatype == "INT64"
    with pytest.raises(TensorError, match="got a InDlpack, expected a numpy array"):
        memory.put(InDlpack(values, device=1))


def test_tensor_of_another_gpu_is_copied_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = FakeCupy(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    values = np.arange(4, dtype=np.float32)
    with CudaMemory.create(64, device=1) as memory:
        memory.put(InDlpack(values, number=1))
        assert cupy.moves == []
        memory.put(InDlpack(values, number=0))
        assert cupy.moves == [(0, 1)]
        np.testing.assert_array_equal(memory.array("FP32", (4,)), values)


@pytest.mark.parametrize(
    "refusal",
    [
        BufferError("Can't export tensors that require gradient, use tensor.detach()"),
        TypeError("bfloat16 is not supported"),
    ],
    ids=["gradient", "bfloat16"],
)
def test_tensor_that_its_library_does_not_give_is_refused_in_its_words(
    refusal: Exception, memory: CudaMemory
) -> None:
    with pytest.raises(TensorError, match=f"LikeTorch on a GPU .*{re.escape(str(refusal))}.*BF16"):
        memory.put(LikeTorch(np.zeros(1, np.float32), refuses=refusal))


def test_lost_gpu_is_no_error_of_the_tensor(memory: CudaMemory) -> None:
    lost = CUDARuntimeError("cudaErrorIllegalAddress")
    with pytest.raises(SharedMemoryError, match="cudaErrorIllegalAddress"):
        memory.put(InDlpack(np.zeros(1, np.float32), refuses=lost))


@pytest.mark.parametrize("kind", [OnDevice, InDlpack, LikeTorch])
def test_tensor_on_a_gpu_is_not_sent_by_way_of_the_host_unasked(kind: Any) -> None:
    value = kind(np.zeros((1, 4), np.float32))
    with pytest.raises(TensorError, match=rf"'x'.*{kind.__name__} lies on a GPU.*CudaMemory.put"):
        build_request(InferRequest("m", {"x": value}))
    with SharedMemory.create(64) as on_host, pytest.raises(TensorError, match="lies on a GPU"):
        on_host.put(value)


def test_outputs_are_given_on_to_other_libraries_where_they_lie(memory: CudaMemory) -> None:
    result = read_response(response("FP32", [2, 3]), {"y": memory.room(24)})
    again = np.from_dlpack(result["y"])  # as torch.from_dlpack does on a GPU
    memory.array("FP32", (2, 3))[...] = 7
    assert (again == 7).all()


def test_bits_of_bf16_are_named(memory: CudaMemory) -> None:
    bits = np.array([0x3F80, 0x4000], np.uint16)
    placed = memory.put(Tensor(OnDevice(bits), "BF16"))  # type: ignore[arg-type]
    assert (placed.datatype, placed.byte_size) == ("BF16", 4)
    result = read_response(response("BF16", [2]), {"y": memory.room(4)})
    assert result["y"].dtype == np.uint16
    np.testing.assert_array_equal(result["y"], bits)


def test_dtype_that_the_protocol_has_not_is_refused(memory: CudaMemory) -> None:
    with pytest.raises(TensorError, match="dtype 'complex64' does not fit datatype 'none'"):
        memory.put(OnDevice(np.zeros(1, np.complex64)))
    with pytest.raises(TensorError, match="dtype 'float32' does not fit datatype 'FP64'"):
        memory.put(Tensor(OnDevice(np.zeros(1, np.float32)), "FP64"))  # type: ignore[arg-type]


def test_tensors_and_rooms_lie_within_the_memory(memory: CudaMemory) -> None:
    assert memory.put(OnDevice(np.zeros(8, np.int64))).end == 64
    for refused in (
        lambda: memory.put(OnDevice(np.zeros(8, np.int64)), 1),
        lambda: memory.put(np.zeros(8, np.int64), 1),
        lambda: memory.room(8, -1),
        lambda: memory.array("FP32", (17,)),
        lambda: memory.tensor("BYTES", (1,)),
    ):
        with pytest.raises(TensorError, match="has no -?[0-9]+ bytes at|is not known"):
            refused()


def test_empty_tensor_needs_no_bytes(memory: CudaMemory) -> None:
    assert memory.put(np.zeros((0, 4), np.float32), 64).byte_size == 0


def test_request_says_where_its_tensors_lie(memory: CudaMemory) -> None:
    placed = memory.put(OnDevice(np.zeros((1, 4), np.float32)))
    message = build_request(
        InferRequest("m", {"x": placed}, outputs={"y": memory.room(16, offset=16)})
    )
    assert not message.raw_input_contents
    assert message.inputs[0].parameters["shared_memory_region"].string_param == "r"
    assert message.outputs[0].parameters["shared_memory_offset"].int64_param == 16


def test_output_is_an_array_on_the_gpu_where_the_server_wrote_it(memory: CudaMemory) -> None:
    memory.array("FP32", (4,), 16)[...] = [1, 2, 3, 4]
    result = read_response(response("FP32", [2, 2]), {"y": memory.room(48, offset=16)})
    array: Any = result["y"]
    assert array.memory.owner is not None  # CuPy's, on the memory itself
    np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


def test_output_of_text_comes_on_the_host(memory: CudaMemory) -> None:
    memory.put(np.array([b"one", b"three"], object))
    result = read_response(response("BYTES", [2]), {"y": memory.room(64)})
    assert result["y"].tolist() == [b"one", b"three"]


@pytest.mark.parametrize(
    ("datatype", "shape", "text"),
    [
        ("FP32", [17], "does not fit into the 64 bytes at 0 of CudaMemory"),
        ("BYTES", [17], "does not fit into the 64 bytes"),
        ("FP32", [-1], r"FP32 \[-1\] is no tensor"),
        ("FP8", [1], r"FP8 \[1\] is no tensor"),
    ],
)
def test_output_that_cannot_be_there_breaks_the_protocol(
    datatype: str, shape: list[int], text: str, memory: CudaMemory
) -> None:
    with pytest.raises(ProtocolError, match=text):
        read_response(response(datatype, shape), {"y": memory.room(64)})


def test_registration_names_the_handle_and_the_servers_device(cupy: FakeCupy) -> None:
    with CudaMemory.create(64, name="r", server_device=3) as memory:
        operation = operations.register_shared_memory(memory)
        assert operation.request == pb.CudaSharedMemoryRegisterRequest(
            name="r", raw_handle=memory.handle, device_id=3, byte_size=64
        )
        assert operation.method.name == "CudaSharedMemoryRegister"
        forgotten = operations.forget(memory)
        assert forgotten.method.name == "CudaSharedMemoryUnregister"
        assert forgotten.request == pb.CudaSharedMemoryUnregisterRequest(name="r")


def test_status_is_read() -> None:
    operation = operations.cuda_memory_status("")
    region = pb.CudaSharedMemoryStatusResponse.RegionStatus(name="r", device_id=1, byte_size=8)
    (found,) = operation.read(pb.CudaSharedMemoryStatusResponse(regions={"r": region}))
    assert (found.name, found.device_id, found.byte_size) == ("r", 1, 8)
