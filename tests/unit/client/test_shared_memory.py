"""Shared memory of the client: what is made, what is refused, and what a server may answer."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_client import (
    InferRequest,
    ProtocolError,
    SharedMemory,
    SharedMemoryError,
    TensorError,
)
from penstock_client._infer import StreamMessages, build_request, read_response
from penstock_client._messages import pb


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    with SharedMemory.create(64, name="r") as made:
        yield made


def response(datatype: str, shape: list[int], **fields: Any) -> pb.ModelInferResponse:
    output = pb.ModelInferResponse.InferOutputTensor(name="y", datatype=datatype, shape=shape)
    return pb.ModelInferResponse(
        model_name="m", outputs=[output], raw_output_contents=[b""], **fields
    )


def test_created_memory_is_there_zero_and_private(memory: SharedMemory) -> None:
    path = Path("/dev/shm", memory.key[1:])
    assert bytes(memory.buffer) == bytes(64)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks > 0  # memory that was only promised could end the process


@pytest.mark.parametrize("key", ["", "x", "/", "/..", "/a/b", "/a\0b", "/" + "k" * 255])
def test_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(SharedMemoryError, match="is no key of shared memory"):
        SharedMemory.attach(key)


def test_key_that_exists_or_does_not_is_told(memory: SharedMemory) -> None:
    with pytest.raises(SharedMemoryError, match="cannot be opened: File exists"):
        SharedMemory.create(8, key=memory.key)
    with pytest.raises(SharedMemoryError, match="cannot be opened: No such file"):
        SharedMemory.attach("/penstock-of-nobody")


def test_memory_that_cannot_be_had_leaves_nothing_behind() -> None:
    key = f"/penstock-test-{os.getpid()}"
    for byte_size in (1 << 60, 1 << 63):  # the second is none that the system could be asked for
        with pytest.raises(SharedMemoryError, match="bytes cannot be had"):
            SharedMemory.create(byte_size, key=key)
        assert not Path("/dev/shm", key[1:]).exists()
    with pytest.raises(SharedMemoryError, match="expected at least 1"):
        SharedMemory.create(0)


def test_closed_memory_is_refused(memory: SharedMemory) -> None:
    memory.close()
    memory.close()
    with pytest.raises(SharedMemoryError, match="is closed"):
        memory.put(np.zeros(1, np.int8))


def test_tensors_and_rooms_lie_within_the_memory(memory: SharedMemory) -> None:
    assert memory.put(np.zeros(8, np.int64)).end == 64
    for refused in (
        lambda: memory.put(np.zeros(8, np.int64), 1),
        lambda: memory.room(8, -1),
        lambda: memory.room(-1, 8),
        lambda: memory.tensor("FP32", (17,)),
    ):
        with pytest.raises(TensorError, match="has no -?[0-9]+ bytes at"):
            refused()
    with pytest.raises(TensorError, match="the size of BYTES"):
        memory.tensor("BYTES", (1,))
    with pytest.raises(TensorError, match="the size of FP8"):
        memory.tensor("FP8", (1,))


def test_request_says_where_its_tensors_lie(memory: SharedMemory) -> None:
    inputs: Any = {"a": memory.put(np.ones(2, np.float32), 8), "b": np.ones(1, np.int8)}
    outputs = {"y": memory.room(16, 24), "z": None}
    message = build_request(InferRequest("m", inputs, outputs=outputs))
    assert list(message.raw_input_contents) == [b"\x01"]
    for tensor, offset, size in ((message.inputs[0], 8, 8), (message.outputs[0], 24, 16)):
        parameters = tensor.parameters
        assert parameters["shared_memory_region"].string_param == "r"
        assert parameters["shared_memory_offset"].int64_param == offset
        assert parameters["shared_memory_byte_size"].int64_param == size
    assert not message.inputs[1].parameters
    assert not message.outputs[1].parameters


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [
        ("INT32", [3]),
        ("INT32", [2**40, 2**40]),
        ("INT32", [-1]),
        ("FP8", [1]),
        ("BYTES", [2**62]),
        ("BYTES", [2]),
    ],
)
def test_output_that_does_not_fit_its_room_is_a_protocol_error(
    memory: SharedMemory, datatype: str, shape: list[int]
) -> None:
    memory.buffer[:12] = b"\x01\0\0\0x\xff\xff\xff\xff\0\0\0"
    with pytest.raises(ProtocolError, match="output 'y' of model 'm'"):
        read_response(response(datatype, shape), {"y": memory.room(8)})


def test_stream_wants_an_id_for_each_request_into_shared_memory(memory: SharedMemory) -> None:
    messages = StreamMessages()
    room = {"y": memory.room(4)}
    with pytest.raises(TensorError, match="want a request_id"):
        messages.build(InferRequest("m", {}, outputs=room))
    messages.build(InferRequest("m", {}, outputs=room, request_id="1"))
    with pytest.raises(TensorError, match="that no other request of the stream has"):
        messages.build(InferRequest("m", {}, outputs=room, request_id="1"))
    memory.put(np.array([7], np.int32))
    answer = pb.ModelStreamInferResponse(infer_response=response("INT32", [1], id="1"))
    result: Any = messages.read(answer)
    assert result["y"].tolist() == [7]
    messages.build(InferRequest("m", {}, outputs=room, request_id="1"))  # answered: free again
