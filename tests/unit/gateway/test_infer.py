"""Inference over HTTP: JSON and bytes in, JSON and bytes out, against a fake upstream."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from tests.support.asgi import AsgiReply, ask_asgi
from tests.support.fake_upstream import FakeUpstream, echo, metadata
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.app import Gateway
from penstock_gateway.options import Options
from penstock_gateway.upstream import UpstreamError

PUSHBACK = {"grpc-retry-pushback-ms": "2100"}
ENDLESS = {"grpc-retry-pushback-ms": "9" * 999}
DECOUPLED = "doesn't support models with decoupled transaction policy"
HEADER = "inference-header-content-length"
PATH = "/v2/models/m/infer"


def tensor(data: Any, datatype: str = "FP32", shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "X", "datatype": datatype, "shape": shape or [len(data)], "data": data}


async def infer(
    upstream: FakeUpstream, document: object, tail: bytes = b"", **headers: str
) -> AsgiReply:
    head = document if isinstance(document, bytes) else orjson.dumps(document)
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if tail:
        pairs.append((HEADER, str(len(head))))
    return await ask_asgi(Gateway(upstream, Options()), "POST", PATH, head + tail, pairs)


async def test_json_goes_as_raw_contents_and_comes_back_as_json() -> None:
    upstream = FakeUpstream()
    reply = await infer(upstream, {"id": "7", "inputs": [tensor([[1, 2], [3, 4.5]], shape=[2, 2])]})
    assert upstream.last.raw_input_contents == [np.array([1, 2, 3, 4.5], "<f4").tobytes()]
    assert (upstream.last.model_name, upstream.last.id) == ("m", "7")
    assert reply.status == 200
    output = {"name": "X", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.5]}
    assert reply.json == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [output],
    }


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("INT8", [-128, 127]),
        ("UINT16", [0, 65535]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP32", [0.5, -1.0]),
        ("FP64", [0.1, 1e300]),
        ("BYTES", ["", "za\u017c\u00f3\u0142\u0107", "x" * 300]),
    ],
)
async def test_every_datatype_comes_back_exactly(datatype: str, data: list[Any]) -> None:
    reply = await infer(FakeUpstream(), {"inputs": [tensor(data, datatype)]})
    assert reply.json["outputs"][0]["data"] == data


@pytest.mark.parametrize(
    ("datatype", "data", "words"),
    [
        ("INT8", [128], "out of the range of INT8"),
        ("UINT32", [-1], "out of the range of UINT32"),
        ("INT64", [2**63], "out of the range of INT64"),
        ("FP32", [1e39], "out of the range of FP32"),
        ("INT32", [1.5], "expected whole numbers for INT32"),
        ("INT32", [True], "expected whole numbers"),
        ("INT32", ["1"], "expected whole numbers"),
        ("FP32", ["1.5"], "expected numbers for FP32"),
        ("FP32", [None], "expected numbers"),
        ("BOOL", [1], "expected true or false"),
        ("BYTES", [1], "expected strings"),
        ("FP32", [[1], [2, 3]], "different shapes"),
        ("FP32", [[1], 2], "different shapes"),
        ("FP16", [1.0], "sending FP16 data via JSON is not supported"),
        ("BF16", [1.0], "sending BF16 data via JSON is not supported"),
        ("FP99", [1.0], "unknown datatype 'FP99'"),
    ],
)
async def test_value_that_is_none_of_its_datatype_is_refused(
    datatype: str, data: list[Any], words: str
) -> None:
    upstream = FakeUpstream()
    reply = await infer(upstream, {"inputs": [tensor(data, datatype)]})
    assert reply.status == 400
    assert words in reply.json["error"]
    assert upstream.calls == []


@pytest.mark.parametrize(
    "text", [b"[NaN]", b"[Infinity]", b"[1e999]", b"[-1e999]", b"[1" + b"0" * 400 + b"]"]
)
async def test_number_that_json_or_the_datatype_has_not_is_refused(text: bytes) -> None:
    body = b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1],"data":' + text + b"}]}"
    reply = await infer(FakeUpstream(), body)
    assert reply.status == 400


@pytest.mark.parametrize("levels", [100, 1025, 200_000])
async def test_deep_nesting_is_refused(levels: int) -> None:
    body = b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1],"data":'
    reply = await infer(FakeUpstream(), body + b"[" * levels + b"1" + b"]" * levels + b"}]}")
    assert reply.status == 400


async def test_infinities_of_an_output_are_null_in_json_and_exact_as_bytes() -> None:
    raw = np.array([np.nan, np.inf, 1], "<f4").tobytes()
    reply = wire.ModelInferResponse(model_name="m", raw_output_contents=[raw])
    reply.outputs.add(name="Y", datatype="FP32", shape=[3])
    upstream = FakeUpstream({"ModelInfer": reply})
    assert (await infer(upstream, {"inputs": []})).json["outputs"][0]["data"] == [None, None, 1.0]
    binary = await infer(upstream, {"inputs": [], "parameters": {"binary_data_output": True}})
    assert binary.body[int(binary.headers[HEADER]) :] == raw


async def test_bytes_follow_the_json_in_the_order_of_the_inputs() -> None:
    upstream = FakeUpstream()
    inputs = [
        {"name": "A", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}},
        {
            "name": "S",
            "datatype": "FP32",
            "shape": [1],
            "parameters": {"shared_memory_region": "r"},
        },
        {"name": "J", "datatype": "INT16", "shape": [1], "data": [3]},
        {"name": "B", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}},
    ]
    upstream.answers["ModelInfer"] = wire.ModelInferResponse(model_name="m")
    reply = await infer(upstream, {"inputs": inputs}, b"\x01\x02\x00\x3c")
    assert reply.status == 200, reply.body
    assert list(upstream.last.raw_input_contents) == [b"\x01\x02", b"\x03\x00", b"\x00\x3c"]
    assert upstream.last.inputs[1].parameters["shared_memory_region"].string_param == "r"
    assert "binary_data_size" not in upstream.last.inputs[0].parameters


async def test_outputs_are_binary_where_the_request_says_so() -> None:
    document = {
        "inputs": [tensor([1, 2], "INT32"), {**tensor([3], "INT32"), "name": "Z"}],
        "outputs": [{"name": "Z", "parameters": {"binary_data": False}}, {"name": "X"}],
        "parameters": {"binary_data_output": True, "mine": 1.5},
    }
    upstream = FakeUpstream()
    reply = await infer(upstream, document)
    size = int(reply.headers[HEADER])
    x, z = orjson.loads(reply.body[:size])["outputs"]
    assert reply.headers["content-type"] == "application/octet-stream"
    assert x["parameters"] == {"binary_data_size": 8} and "data" not in x
    assert z["data"] == [3] and "parameters" not in z  # C++ clients fail on an empty object
    assert reply.body[size:] == np.array([1, 2], "<i4").tobytes()
    assert dict(upstream.last.parameters).keys() == {"mine"}
    assert dict(upstream.last.outputs[0].parameters) == {}


@pytest.mark.parametrize("kind", ["1", "-1", "x", "", "99999999999999999999", "0x10", "1 2"])
async def test_header_length_out_of_range_is_refused(kind: str) -> None:
    body = b"" if kind == "1" else b"{}"
    gateway = Gateway(FakeUpstream(), Options())
    reply = await ask_asgi(gateway, "POST", PATH, body, [(HEADER, kind)])
    assert reply.status == 400
    size = len(body)
    assert (
        f"inference header size should be in range (0, {size}), got: {kind}" in reply.json["error"]
    )


@pytest.mark.parametrize(
    ("size", "tail", "words"),
    [
        (
            4,
            b"12",
            "unexpected size for input 'X' for model 'm', expecting 2 additional bytes for model",
        ),
        (2, b"1234", "unexpected additional input data for model 'm'"),
        (-1, b"12", "expected a 'binary_data_size' of 0 or more"),
        (2**70, b"12", "out of the range of 64 bits"),
        ("2", b"12", "expected 'binary_data_size' of input 'X' to be a whole number"),
    ],
)
async def test_bytes_that_do_not_fit_the_json_are_refused(
    size: Any, tail: bytes, words: str
) -> None:
    entry = {
        "name": "X",
        "datatype": "UINT8",
        "shape": [2],
        "parameters": {"binary_data_size": size},
    }
    document = (
        orjson.dumps({"inputs": [entry]})
        if size != 2**70
        else (
            b'{"inputs":[{"name":"X","datatype":"UINT8","shape":[2],'
            b'"parameters":{"binary_data_size":1180591620717411303424}}]}'
        )
    )
    reply = await infer(FakeUpstream(), document, tail)
    assert reply.status == 400
    assert words in reply.json["error"] or "whole number" in reply.json["error"]


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{", b"[]", b"1", b"\xff", b'"x"', b"null", b'{"inputs":{}}', b'{"inputs":[1]}',
        b'{"inputs":[{"name":1}]}', b'{"inputs":[{"name":"X","shape":[1.5],"datatype":"FP32"}]}',
        b'{"inputs":[{"name":"X","shape":[true],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[{"name":"X","shape":[1],"datatype":"FP32"}]}',
        b'{"inputs":[{"name":"X","shape":[1],"datatype":"FP32","data":"abc"}]}',
        b'{"inputs":[{"name":"X","shape":[99999999999999999999],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[],"outputs":[{"name":"Y","parameters":{"binary_data":1}}]}',
        b'{"inputs":[],"parameters":{"a":[1]}}', b'{"inputs":[],"parameters":{"triton_x":1}}',
        b'{"inputs":[],"id":5}', b'{"inputs":[],"parameters":[]}',
    ],
)  # fmt: skip
async def test_what_is_no_request_is_400_and_goes_no_further(document: bytes) -> None:
    upstream = FakeUpstream()
    reply = await infer(upstream, document)
    assert reply.status == 400
    assert isinstance(reply.json["error"], str)
    assert upstream.calls == []


async def test_lone_surrogate_is_no_reason_to_fail() -> None:
    reply = await infer(FakeUpstream(), b'{"inputs":[],"id":"\\ud800"}')
    assert reply.status == 400


async def test_parameters_keep_their_types() -> None:
    upstream = FakeUpstream()
    given = {"b": True, "i": -5, "u": 2**64 - 1, "d": 0.5, "s": "x", "priority": 3, "n": None}
    assert (await infer(upstream, {"inputs": [], "parameters": given})).status == 200
    sent = {
        key: (
            value.WhichOneof("parameter_choice"),
            getattr(value, value.WhichOneof("parameter_choice")),
        )
        for key, value in upstream.last.parameters.items()
    }
    assert sent == {
        "b": ("bool_param", True),
        "i": ("int64_param", -5),
        "u": ("uint64_param", 2**64 - 1),
        "d": ("double_param", 0.5),
        "s": ("string_param", "x"),
        "priority": ("int64_param", 3),
    }


@pytest.mark.parametrize(
    ("spec", "body", "shape"),
    [
        (("FP32", [-1, 2]), bytes(8), [1, 2]),
        (("FP32", [-1, -1]), bytes(12), [1, 3]),
        (("UINT8", [-1]), bytes(5), [5]),
        (("INT64", [2]), bytes(16), [2]),
    ],
)
async def test_raw_request_is_the_bytes_of_the_one_input(
    spec: tuple[str, list[int]], body: bytes, shape: list[int]
) -> None:
    upstream = FakeUpstream({"ModelInfer": echo, "ModelMetadata": metadata(X=spec)})
    gateway = Gateway(upstream, Options())
    reply = await ask_asgi(gateway, "POST", PATH, body, [(HEADER, "0")])
    assert reply.status == 200, reply.body
    assert list(upstream.last.inputs[0].shape) == shape
    assert reply.body[int(reply.headers[HEADER]) :] == body


async def test_raw_request_of_text_is_one_element() -> None:
    answers = {"ModelInfer": echo, "ModelMetadata": metadata(T=("BYTES", [-1, 1]))}
    upstream = FakeUpstream(answers)
    reply = await ask_asgi(Gateway(upstream, Options()), "POST", PATH, b"hello", [(HEADER, "0")])
    assert reply.status == 200
    assert list(upstream.last.raw_input_contents) == [struct.pack("<I", 5) + b"hello"]
    assert list(upstream.last.inputs[0].shape) == [1, 1]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"A": ("FP32", [1]), "B": ("FP32", [1])}, "wants a model of 1 input"),
        ({"A": ("FP32", [1, -1, -1])}, "at most one open dimension"),
        ({"A": ("FP32", [-1])}, "no whole number of rows of 4 bytes"),
        ({"A": ("BYTES", [2])}, "expected BYTES of shape [1]"),
    ],
)
async def test_raw_request_of_another_model_is_refused(inputs: Any, words: str) -> None:
    upstream = FakeUpstream({"ModelInfer": echo, "ModelMetadata": metadata(**inputs)})
    reply = await ask_asgi(Gateway(upstream, Options()), "POST", PATH, b"12345", [(HEADER, "0")])
    assert reply.status == 400
    assert words in reply.json["error"]


@pytest.mark.parametrize(
    ("error", "status", "text", "headers"),
    [
        (UpstreamError(3, "bad"), 400, "bad", {}),
        (UpstreamError(5, "who?"), 404, "who?", {}),
        (UpstreamError(14, "full"), 503, "full", {"retry-after": "1"}),
        (UpstreamError(8, "slow", PUSHBACK), 429, "slow", {"retry-after": "3"}),
        (UpstreamError(14, "odd", ENDLESS), 503, "odd", {"retry-after": "3600"}),
        (UpstreamError(16, "key?"), 401, "key?", {"www-authenticate": "Bearer"}),
        (UpstreamError(7, "no"), 403, "no", {}),
        (UpstreamError(6, "twice"), 400, "twice", {}),
        (UpstreamError(4, "late"), 504, "late", {}),
        (UpstreamError(13, "broken"), 500, "broken", {}),
        (UpstreamError(12, f"ModelInfer RPC {DECOUPLED}"), 501, f"HTTP end point {DECOUPLED}", {}),
        (UpstreamError(14, "This protocol is restricted, expecting header 'h'"), 403,
         "This API is restricted, expecting header 'h'", {}),
        (ValueError("a secret"), 500, None, {}),
    ],
)  # fmt: skip
async def test_failure_has_the_status_that_clients_of_triton_expect(
    error: Exception, status: int, text: str | None, headers: dict[str, str]
) -> None:
    reply = await infer(FakeUpstream({"ModelInfer": error}), {"inputs": []})
    assert reply.status == status
    assert headers.items() <= reply.headers.items()
    assert "a secret" not in reply.json["error"]
    assert text in (None, reply.json["error"])


async def test_output_that_is_no_text_or_half_precision_asks_for_binary_data() -> None:
    for datatype, raw in [("BYTES", b"\x01\x00\x00\x00\xff"), ("FP16", b"\x00\x3c")]:
        reply = wire.ModelInferResponse(model_name="m", raw_output_contents=[raw])
        reply.outputs.add(name="Y", datatype=datatype, shape=[1])
        upstream = FakeUpstream({"ModelInfer": reply})
        refused = await infer(upstream, {"inputs": []})
        assert refused.status == 400 and "output 'Y'" in refused.json["error"]
        asked = {"inputs": [], "outputs": [{"name": "Y", "parameters": {"binary_data": True}}]}
        assert (await infer(upstream, asked)).body.endswith(raw)


async def test_large_tensor_is_one_content_of_its_size() -> None:
    upstream = FakeUpstream()
    raw = np.arange(1 << 20, dtype=np.uint8).tobytes()
    entry = {"name": "X", "datatype": "UINT8", "shape": [len(raw)]}
    document = {"inputs": [{**entry, "parameters": {"binary_data_size": len(raw)}}]}
    document["parameters"] = {"binary_data_output": True}  # type: ignore[assignment]
    reply = await infer(upstream, document, raw)
    assert reply.body[int(reply.headers[HEADER]) :] == raw
    assert len(reply.parts) == 2  # JSON and tensor, not joined
