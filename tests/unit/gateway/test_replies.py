"""Answers of servers that are not Penstock: typed contents, odd rows, and what is no answer."""

from typing import Any

import numpy as np
import orjson
import pytest
from tests.support.asgi import AsgiReply, ask_asgi
from tests.support.fake_upstream import FakeUpstream, metadata
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.app import Gateway
from penstock_gateway.options import CloudRoutes, Options

PATHS = {
    "/v2/models/m/infer": {"inputs": []},
    "/v2/models/m/generate": {"X": 1},
    "/invocations": {"instances": [1]},
}
TYPED = [
    ("BOOL", "bool_contents", [True, False]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-3, 4]),
    ("INT32", "int_contents", [-(2**31), 1]),
    ("INT64", "int64_contents", [-(2**63), 1]),
    ("UINT8", "uint_contents", [0, 255]),
    ("UINT16", "uint_contents", [0, 65535]),
    ("UINT32", "uint_contents", [0, 2**32 - 1]),
    ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ("FP32", "fp32_contents", [0.5, -1.0]),
    ("FP64", "fp64_contents", [0.1, 1e300]),
    ("BYTES", "bytes_contents", [b"a", b"bcd"]),
]


def reply_of(datatype: str, name: str, values: list[Any]) -> Any:
    reply = wire.ModelInferResponse(model_name="m", model_version="1")
    output = reply.outputs.add(name="Y", datatype=datatype, shape=[len(values)])
    getattr(output.contents, name).extend(values)
    return reply


async def ask(path: str, reply: Any, body: object = None) -> AsgiReply:
    streamed = [wire.ModelStreamInferResponse(infer_response=reply)]
    model = metadata(X=("INT32", [-1]))
    upstream = FakeUpstream(
        {"ModelInfer": reply, "ModelStreamInfer": streamed, "ModelMetadata": model}
    )
    gateway = Gateway(upstream, Options(clouds=CloudRoutes(default_model="m")))
    return await ask_asgi(gateway, "POST", path, orjson.dumps(body or PATHS[path]))


@pytest.mark.parametrize(("datatype", "name", "values"), TYPED)
async def test_typed_contents_are_answered_as_raw_ones(
    datatype: str, name: str, values: list[Any]
) -> None:
    shown = [each.decode() if isinstance(each, bytes) else each for each in values]
    infer, generate, predict = [
        (await ask(path, reply_of(datatype, name, values))).json for path in PATHS
    ]
    assert infer["outputs"][0]["data"] == shown
    assert generate["Y"] == shown
    assert predict == {"predictions": shown}


async def test_typed_contents_go_as_bytes_where_these_are_asked_for() -> None:
    reply = reply_of("INT16", "int_contents", [1, -1])
    body = {"inputs": [], "parameters": {"binary_data_output": True}}
    answer = await ask("/v2/models/m/infer", reply, body)
    assert answer.body.endswith(np.array([1, -1], "<i2").tobytes())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (reply_of("INT8", "int_contents", [128]), "out of the range of INT8"),
        (reply_of("FP16", "fp32_contents", [1.0]), "no contents have the datatype 'FP16'"),
        (
            wire.ModelInferResponse(outputs=[wire.ModelInferResponse.InferOutputTensor(name="Y")]),
            "1 outputs came with 0 contents",
        ),
    ],
)
async def test_answer_that_does_not_hold_together_is_told(
    path: str, reply: Any, words: str
) -> None:
    answer = await ask(path, reply)
    assert answer.status == 500
    assert words in answer.json["error"]


async def test_rows_of_different_numbers_are_no_predictions() -> None:
    reply = wire.ModelInferResponse(model_name="m")
    for name, count in [("A", 2), ("B", 3)]:
        reply.outputs.add(name=name, datatype="UINT8", shape=[count])
        reply.raw_output_contents.append(bytes(count))
    answer = await ask("/invocations", reply)
    assert answer.status == 400
    assert "as many rows, the model answered with {'A': 2, 'B': 3}" in answer.json["error"]


async def test_shared_memory_region_of_null_is_none() -> None:
    tensor = {"name": "X", "datatype": "INT8", "shape": [1], "data": [1]}
    body = {
        "inputs": [{**tensor, "parameters": {"shared_memory_region": None}}],
        "outputs": [{"name": "Y", "parameters": {"shared_memory_region": None}}],
    }
    answer = await ask("/v2/models/m/infer", reply_of("INT8", "int_contents", [5]), body)
    assert answer.json["outputs"][0]["data"] == [5]


@pytest.mark.parametrize(
    ("datatype", "raw", "words"),
    [
        ("BYTES", b"\x01\x00", "end in the middle"),
        ("BYTES", b"\x05\x00\x00\x00four", "end in the middle"),
        ("BYTES", b"\x00\x00\x00\x00\x01", "end in the middle"),
        ("FP32", b"12345", "5 bytes are no whole number of FP32"),
    ],
)
async def test_output_that_is_not_whole_is_told_by_name(
    datatype: str, raw: bytes, words: str
) -> None:
    reply = wire.ModelInferResponse(model_name="m", raw_output_contents=[raw])
    reply.outputs.add(name="Y", datatype=datatype, shape=[1])
    upstream = FakeUpstream({"ModelInfer": reply})
    answer = await ask_asgi(
        Gateway(upstream, Options()), "POST", "/v2/models/m/infer", b'{"inputs":[]}'
    )
    assert answer.status == 500
    assert answer.json["error"].startswith("output 'Y': ") and words in answer.json["error"]
