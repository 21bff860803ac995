"""What a call's first message says of itself, whatever is wrong with it."""

import random

import pytest
from tritonclient.grpc import service_pb2 as wire

from penstock.codec import call_names

SERVICE = "/inference.GRPCInferenceService/"


def test_inference_names_model_version_and_id() -> None:
    request = wire.ModelInferRequest(model_name="m", model_version="3", id="r")
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.raw_input_contents.append(b"1234")
    for rpc in ("ModelInfer", "ModelStreamInfer"):
        assert call_names(SERVICE + rpc, request.SerializeToString()) == ("m", "3", "r")


@pytest.mark.parametrize(
    ("rpc", "message", "expected"),
    [
        ("ModelReady", wire.ModelReadyRequest(name="m", version="2"), ("m", "2", "")),
        ("ModelConfig", wire.ModelConfigRequest(name="m"), ("m", "", "")),
        ("RepositoryModelLoad", wire.RepositoryModelLoadRequest(model_name="m"), ("m", "", "")),
        ("TraceSetting", wire.TraceSettingRequest(model_name="m"), ("m", "", "")),
        ("ServerReady", wire.ServerReadyRequest(), ("", "", "")),
    ],
)
def test_control_names_its_model(rpc: str, message: object, expected: tuple[str, ...]) -> None:
    data = message.SerializeToString()  # type: ignore[attr-defined]
    assert call_names(SERVICE + rpc, data) == expected


def test_other_services_name_nothing() -> None:
    request = wire.ModelReadyRequest(name="m").SerializeToString()
    assert call_names("/grpc.health.v1.Health/Check", request) == ("", "", "")


def test_any_bytes_are_read_without_an_exception() -> None:
    chance = random.Random(5)
    good = wire.ModelInferRequest(model_name="m" * 300, id="r").SerializeToString()
    for size in range(400):
        noise = chance.randbytes(size % 40)
        call_names(f"{SERVICE}ModelInfer", noise)
        call_names(f"{SERVICE}ModelInfer", good[:size])
    assert call_names(f"{SERVICE}ModelInfer", b"\xff" * 20) == ("", "", "")
    assert len(call_names(f"{SERVICE}ModelInfer", good).model) == 256


@pytest.mark.parametrize("field", [b"\x10\x01", b"\x12\x00", b"\x20\x01"])
def test_names_behind_many_fields_are_not_looked_for(field: bytes) -> None:
    named = wire.ModelInferRequest(model_name="m").SerializeToString()
    assert call_names(f"{SERVICE}ModelInfer", field * 16 + named) == ("", "", "")
    assert call_names(f"{SERVICE}ModelInfer", named + field * 1000).model == "m"
