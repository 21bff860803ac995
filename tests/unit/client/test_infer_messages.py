"""Inference requests and responses against the protocol's messages."""

from typing import Any

import numpy as np
import pytest

from penstock_client import InferRequest, ProtocolError, TensorError
from penstock_client._infer import build_request, read_response
from penstock_client._messages import pb

ONE = {"x": np.ones((1, 2), np.float32)}


def parameters_of(message: Any) -> dict[str, tuple[str, Any]]:
    return {
        key: (choice := value.WhichOneof("parameter_choice"), getattr(value, choice))
        for key, value in message.parameters.items()
    }


def response(*outputs: dict[str, Any], raw: list[bytes], **fields: Any) -> pb.ModelInferResponse:
    tensors = [pb.ModelInferResponse.InferOutputTensor(**output) for output in outputs]
    return pb.ModelInferResponse(
        model_name="m", model_version="3", outputs=tensors, raw_output_contents=raw, **fields
    )


def test_inputs_travel_raw_in_order() -> None:
    inputs = {"b": np.array([[1, 2]], np.int8), "a": np.array(["x"])}
    message = build_request(InferRequest("m", inputs, version="2", request_id="r"))
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "r")
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("b", "INT8", [1, 2]),
        ("a", "BYTES", [1]),
    ]
    assert list(message.raw_input_contents) == [b"\x01\x02", b"\x01\0\0\0x"]
    assert not message.outputs
    assert not message.parameters


def test_parameters_travel_by_their_type() -> None:
    parameters: dict[str, Any] = {
        "flag": True,
        "count": -3,
        "huge": 2**64 - 1,
        "rate": 0.5,
        "name": "n",
        "numpy": np.int32(4),
    }
    message = build_request(InferRequest("m", ONE, parameters=parameters))
    assert parameters_of(message) == {
        "flag": ("bool_param", True),
        "count": ("int64_param", -3),
        "huge": ("uint64_param", 2**64 - 1),
        "rate": ("double_param", 0.5),
        "name": ("string_param", "n"),
        "numpy": ("int64_param", 4),
    }


def test_priority_and_queue_timeout_travel_as_public_clients_send_them() -> None:
    message = build_request(InferRequest("m", ONE, priority=2, timeout_us=1500))
    assert parameters_of(message) == {
        "priority": ("uint64_param", 2),
        "timeout": ("int64_param", 1500),
    }


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        pytest.param({"parameters": {"p": None}}, "parameter 'p' of model 'm'", id="none"),
        pytest.param({"parameters": {"p": 2**64}}, "int of 64 bits", id="too-big"),
        pytest.param({"parameters": {"p": b"raw"}}, "got b'raw'", id="bytes"),
        pytest.param({"priority": -1}, "priority of model 'm': -1", id="priority"),
        pytest.param({"priority": 1, "parameters": {"priority": 2}}, "both", id="priority-twice"),
        pytest.param({"timeout_us": 1, "parameters": {"timeout": 2}}, "both", id="timeout-twice"),
        pytest.param({"classification": {"y": 0}}, "at least 1 class .*got 0", id="classes"),
        pytest.param({"classification": {"y": 2**63}}, "less than 2", id="too-many-classes"),
        pytest.param({"inputs": {"x": [1]}}, "input 'x' of model 'm': got a list", id="list"),
    ],
)
def test_request_that_cannot_be_sent_is_refused(changes: dict[str, Any], fragment: str) -> None:
    with pytest.raises(TensorError, match=fragment):
        build_request(InferRequest("m", **{"inputs": ONE, **changes}))


def test_outputs_are_asked_for_in_order_and_classified_ones_added_once() -> None:
    request = InferRequest("m", ONE, outputs=["b", "a"], classification={"a": 3, "c": 1})
    message = build_request(request)
    assert [(o.name, parameters_of(o)) for o in message.outputs] == [
        ("b", {}),
        ("a", {"classification": ("int64_param", 3)}),
        ("c", {"classification": ("int64_param", 1)}),
    ]


def test_only_a_sequence_step_must_not_run_twice() -> None:
    assert InferRequest("m", ONE).may_run_twice
    assert InferRequest("m", ONE, parameters={"sequence_id": 0}).may_run_twice  # 0 is none
    assert not InferRequest("m", ONE, parameters={"sequence_id": 7}).may_run_twice
    assert not InferRequest("m", ONE, parameters={"sequence_id": "s"}).may_run_twice


def test_result_is_a_mapping_in_output_order() -> None:
    message = response(
        {"name": "b", "datatype": "INT8", "shape": [2]},
        {"name": "a", "datatype": "BYTES", "shape": [1, 1]},
        raw=[b"\x01\xff", b"\x02\0\0\0hi"],
        id="r",
        parameters={"cost": pb.InferParameter(double_param=1.5)},
    )
    result = read_response(message)
    assert list(result) == ["b", "a"]
    assert len(result) == 2
    assert result["b"].tolist() == [1, -1]
    assert result["a"].tolist() == [[b"hi"]]
    assert (result.model_name, result.model_version, result.id) == ("m", "3", "r")
    assert result.parameters == {"cost": 1.5}
    assert result.is_final
    assert repr(result) == "InferResult(model 'm' v3, {b: int8[2], a: object[1, 1]})"


def test_missing_output_says_which_there_are() -> None:
    result = read_response(response({"name": "y", "datatype": "INT8", "shape": [0]}, raw=[b""]))
    assert "z" not in result
    assert result.get("z") is None
    with pytest.raises(KeyError, match=r"no output 'z', only \['y'\]"):
        result["z"]


@pytest.mark.parametrize("is_final", [True, False])
def test_final_flag_is_an_attribute_not_a_parameter(is_final: bool) -> None:
    flag = {"triton_final_response": pb.InferParameter(bool_param=is_final)}
    result = read_response(response(raw=[], parameters=flag))
    assert result.is_final is is_final
    assert result.parameters == {}


def test_typed_contents_are_read_when_no_raw_ones_came() -> None:
    contents = pb.InferTensorContents(fp32_contents=[1.5, 2.5])
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "contents": contents}
    assert read_response(response(output, raw=[]))["y"].tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        pytest.param([b"\0", b"\0"], "1 outputs but 2 raw contents", id="count"),
        pytest.param([b"\0\0"], "output 'y' of model 'm': got 2 bytes, expected 1", id="size"),
        pytest.param([], "output 'y' of model 'm': got 0 bytes, expected 1", id="nothing"),
    ],
)
def test_outputs_that_do_not_add_up_are_a_protocol_error(raw: list[bytes], fragment: str) -> None:
    with pytest.raises(ProtocolError, match=fragment):
        read_response(response({"name": "y", "datatype": "INT8", "shape": [1]}, raw=raw))
