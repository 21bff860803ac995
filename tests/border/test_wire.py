"""The core's parser and encoder against the protobuf runtime, through an identity model.

Requests are written and responses read with tritonclient's message classes, so neither side of the
comparison is ours.
"""

import importlib.util
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import pytest_asyncio
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2 as wire

import penstock
from penstock.core import Core, InputSpec, OutputSpec, StreamReply, VersionSpec
from penstock.errors import InvalidArgumentError, NotFoundError

# Datatype -> (ONNX type, typed field or None, values, their memory layout).
CASES: dict[str, tuple[int, str | None, list[Any], bytes]] = {
    "BOOL": (TensorProto.BOOL, "bool_contents", [True, False], b"\1\0"),
    "UINT8": (TensorProto.UINT8, "uint_contents", [0, 255], struct.pack("<2B", 0, 255)),
    "UINT16": (TensorProto.UINT16, "uint_contents", [0, 65535], struct.pack("<2H", 0, 65535)),
    "UINT32": (
        TensorProto.UINT32,
        "uint_contents",
        [0, 2**32 - 1],
        struct.pack("<2I", 0, 2**32 - 1),
    ),
    "UINT64": (
        TensorProto.UINT64,
        "uint64_contents",
        [0, 2**64 - 1],
        struct.pack("<2Q", 0, 2**64 - 1),
    ),
    "INT8": (TensorProto.INT8, "int_contents", [-128, 127], struct.pack("<2b", -128, 127)),
    "INT16": (TensorProto.INT16, "int_contents", [-(2**15), -1], struct.pack("<2h", -(2**15), -1)),
    "INT32": (TensorProto.INT32, "int_contents", [-(2**31), -1], struct.pack("<2i", -(2**31), -1)),
    "INT64": (TensorProto.INT64, "int64_contents", [-(2**63), 1], struct.pack("<2q", -(2**63), 1)),
    "FP16": (TensorProto.FLOAT16, None, [], struct.pack("<2e", 1.5, float("inf"))),
    "BF16": (TensorProto.BFLOAT16, None, [], b"\x80\x3f\x80\xff"),
    "FP32": (
        TensorProto.FLOAT,
        "fp32_contents",
        [1.5, float("-inf")],
        struct.pack("<2f", 1.5, float("-inf")),
    ),
    "FP64": (TensorProto.DOUBLE, "fp64_contents", [0.1, -2.0], struct.pack("<2d", 0.1, -2.0)),
    "BYTES": (
        TensorProto.STRING,
        "bytes_contents",
        ["ü".encode(), b""],
        struct.pack("<I", 2) + "ü".encode() + struct.pack("<I", 0),
    ),
}
TYPED = [datatype for datatype, case in CASES.items() if case[1] is not None]


@pytest_asyncio.fixture
async def core() -> AsyncIterator[Core]:
    plugins = Path(penstock.__file__).parent / "backends"
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    started = Core(backend_directories=[str(plugins)])
    library = Path(spec.submodule_search_locations[0]) / "capi"
    started.engine.set_backend_options("onnxruntime", {"library": str(library)})
    started.start()
    yield started
    await started.close()


async def serve_identity(core: Core, directory: Path, datatype: str) -> None:
    """Serves `identity`: IN of any length -> OUT, the same."""
    element = CASES[datatype][0]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["IN"], ["OUT"])],
        "identity",
        [helper.make_tensor_value_info("IN", element, ["n"])],
        [helper.make_tensor_value_info("OUT", element, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = directory / "model.onnx"
    onnx.save(model, str(path))
    loaded = await core.run(
        core.engine.load_model,
        backend="onnxruntime",
        model_name="identity",
        version=3,
        path=str(path),
        model_directory=str(directory),
        parameters={},
    )
    spec = VersionSpec(
        model_name="identity",
        version=3,
        inputs=[InputSpec("IN", datatype, [-1])],
        outputs=[OutputSpec("OUT", datatype, [-1])],
    )
    version = await core.run(core.engine.create_version, loaded, spec)
    version.start()
    core.engine.set_serving("identity", [version])


def make_request(datatype: str, length: int) -> Any:
    request = wire.ModelInferRequest(model_name="identity", id="request-1")
    request.inputs.add(name="IN", datatype=datatype, shape=[length])
    return request


def assert_echoed(response: Any, datatype: str, length: int, data: bytes) -> None:
    assert response.model_name == "identity"
    assert response.model_version == "3"
    assert response.id == "request-1"
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("OUT", datatype, [length])
    ]
    assert list(response.raw_output_contents) == [data]


@pytest.mark.parametrize("datatype", CASES)
async def test_raw_contents_come_back_bit_for_bit(
    core: Core, tmp_path: Path, datatype: str
) -> None:
    await serve_identity(core, tmp_path, datatype)
    data = CASES[datatype][3]
    request = make_request(datatype, 2)
    request.raw_input_contents.append(data)

    payload = await core.infer(request.SerializeToString())

    assert_echoed(wire.ModelInferResponse.FromString(payload), datatype, 2, data)


@pytest.mark.parametrize("datatype", TYPED)
async def test_typed_contents_come_back_raw(core: Core, tmp_path: Path, datatype: str) -> None:
    await serve_identity(core, tmp_path, datatype)
    _, field, values, data = CASES[datatype]
    request = make_request(datatype, 2)
    getattr(request.inputs[0].contents, str(field)).extend(values)

    payload = await core.infer(request.SerializeToString())

    assert_echoed(wire.ModelInferResponse.FromString(payload), datatype, 2, data)


async def test_zero_size_output_has_its_empty_raw_entry(core: Core, tmp_path: Path) -> None:
    await serve_identity(core, tmp_path, "FP32")
    request = make_request("FP32", 0)
    request.raw_input_contents.append(b"")

    payload = await core.infer(request.SerializeToString())

    assert_echoed(wire.ModelInferResponse.FromString(payload), "FP32", 0, b"")


async def test_stream_response_is_wrapped_and_marked_final(core: Core, tmp_path: Path) -> None:
    await serve_identity(core, tmp_path, "UINT8")
    request = make_request("UINT8", 2)
    request.raw_input_contents.append(b"ab")

    reply = await core.stream_infer(request.SerializeToString())

    assert isinstance(reply, StreamReply)
    response = wire.ModelStreamInferResponse.FromString(reply.payload)
    assert response.error_message == ""
    assert response.infer_response.parameters["triton_final_response"].bool_param is True
    assert_echoed(response.infer_response, "UINT8", 2, b"ab")


async def test_stream_failure_carries_message_and_id_and_no_outputs(
    core: Core, tmp_path: Path
) -> None:
    await serve_identity(core, tmp_path, "UINT8")
    request = make_request("UINT8", 3)
    request.raw_input_contents.append(b"ab")

    reply = await core.stream_infer(request.SerializeToString())

    assert isinstance(reply, StreamReply)
    response = wire.ModelStreamInferResponse.FromString(reply.payload)
    assert "input byte size mismatch for input 'IN' for model 'identity'" in response.error_message
    assert response.infer_response.id == "request-1"
    assert len(response.infer_response.outputs) == 0


async def test_every_truncation_of_a_request_is_refused_or_a_shorter_request(
    core: Core, tmp_path: Path
) -> None:
    await serve_identity(core, tmp_path, "UINT8")
    request = make_request("UINT8", 2)
    request.raw_input_contents.append(b"ab")
    whole = request.SerializeToString()

    for size in range(len(whole)):
        with pytest.raises((InvalidArgumentError, NotFoundError)):
            await core.infer(whole[:size])

    assert await core.infer(whole)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\xff" * 32, "malformed"),
        (wire.ModelInferRequest(model_name="m").SerializeToString() + b"\x2a\x7f", "for model 'm'"),
        (b"\x0a\x02\xc3\x28", "model_name is not valid UTF-8"),
    ],
    ids=["garbage", "length_past_the_end", "invalid_utf8"],
)
async def test_message_that_is_no_request_is_invalid_argument(
    core: Core, message: bytes, text: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        await core.infer(message)
