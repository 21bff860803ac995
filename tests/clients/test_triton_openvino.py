"""A repository written for Triton's openvino backend is served as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.models import openvino_files, triton_openvino
from tests.support.server_process import served
from tests.support.triton_clients import tensor
from tritonclient.grpc import InferenceServerClient

pytestmark = pytest.mark.any_transport

SCALED = ["bf16", "ir", "paddle", "saved_model", "tflite", "throughput"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServerClient]:
    repository = tmp_path_factory.mktemp("models")
    triton_openvino.write_repository(repository)
    flags = ["--model-control-mode=explicit", "--load-model=*"]
    with served(repository, *flags) as server, InferenceServerClient(server.grpc) as connected:
        yield connected


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'


def rows_of(count: int) -> Any:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def test_every_model_is_ready(client: InferenceServerClient) -> None:
    index = client.get_model_repository_index().models
    assert {(each.name, each.state, each.reason) for each in index} == {
        (name, "READY", "") for name in [*SCALED, "onnx", "reshaped"]
    }


@pytest.mark.parametrize("model", SCALED)
@pytest.mark.parametrize("count", [1, 8])
def test_model_answers_every_row(client: InferenceServerClient, model: str, count: int) -> None:
    rows = rows_of(count)
    result = client.infer(model, [tensor("INPUT", rows, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT"), rows * 2)


def test_onnx_model_answers(client: InferenceServerClient) -> None:
    ones = np.ones((2, 16), np.float32)
    result = client.infer("onnx", [tensor(f"INPUT{n}", ones, "FP32") for n in range(2)])
    assert (result.as_numpy("OUTPUT0") == 2).all()


def test_platform_and_default_file_are_told(client: InferenceServerClient) -> None:
    config = client.get_model_config("ir").config
    assert (config.backend, config.default_model_filename) == ("openvino", "model.xml")
    assert config.parameters["PERFORMANCE_HINT"].string_value == "LATENCY"
    assert client.get_model_metadata("ir").platform == "openvino"


@pytest.mark.parametrize("model", [*SCALED, "onnx", "reshaped"])
def test_told_configuration_is_a_valid_override(client: InferenceServerClient, model: str) -> None:
    config = client.get_model_config(model, as_json=True)["config"]
    client.load_model(model, config=json.dumps(config))
    assert client.get_model_config(model, as_json=True)["config"] == config
    client.load_model(model)


@pytest.mark.parametrize("count", [1, 8])
def test_model_with_a_fixed_shape_takes_the_configured_one(
    client: InferenceServerClient, count: int
) -> None:
    assert list(client.get_model_metadata("reshaped").inputs[0].shape) == [-1, 5]
    rows = np.arange(count * 5, dtype=np.float32).reshape(count, 5) - 7
    result = client.infer("reshaped", [tensor("INPUT", rows, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT"), np.maximum(rows, 0))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (parameter("CPU_EXTENSION_PATH", "/opt/own.so"), "CPU_EXTENSION_PATH"),
        (parameter("RESHAPE_IO_LAYERS", "yes"), "a configuration that lists the inputs"),
        (
            'input { name: "INPUT" data_type: TYPE_FP32 dims: [ -1, 4 ] }'
            + parameter("RESHAPE_IO_LAYERS", "yes"),
            "cannot be reshaped to its configuration",
        ),
    ],
)
def test_parameter_that_cannot_be_served_is_refused_by_name(
    tmp_path: Path, config: str, reason: str
) -> None:
    openvino_files.write_model(tmp_path, "m", config=f'backend: "openvino" {config}')
    flags = ["--exit-on-error=false", "--strict-readiness=false"]
    with served(tmp_path, *flags) as server, InferenceServerClient(server.grpc) as client:
        (entry,) = client.get_model_repository_index().models
        assert entry.state == "UNAVAILABLE"
        assert reason in entry.reason
