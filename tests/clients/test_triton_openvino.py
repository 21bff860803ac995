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

SCALED = ["bf16", "ir", "paddle", "saved_model", "tflite", "throughput"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServerClient]:
    repository = tmp_path_factory.mktemp("models")
    triton_openvino.write_repository(repository)
    flags = ["--model-control-mode=explicit", "--load-model=*"]
    with served(repository, *flags) as server, InferenceServerClient(server.grpc) as connected:
        yield connected


def rows_of(count: int) -> Any:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def test_every_model_is_ready(client: InferenceServerClient) -> None:
    index = client.get_model_repository_index().models
    assert {(each.name, each.state, each.reason) for each in index} == {
        (name, "READY", "") for name in [*SCALED, "onnx"]
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


@pytest.mark.parametrize("model", [*SCALED, "onnx"])
def test_told_configuration_is_a_valid_override(client: InferenceServerClient, model: str) -> None:
    config = client.get_model_config(model, as_json=True)["config"]
    client.load_model(model, config=json.dumps(config))
    assert client.get_model_config(model, as_json=True)["config"] == config
    client.load_model(model)


@pytest.mark.parametrize("name", ["CPU_EXTENSION_PATH", "RESHAPE_IO_LAYERS"])
def test_parameter_that_has_no_effect_here_is_refused_by_name(tmp_path: Path, name: str) -> None:
    config = f'backend: "openvino" parameters {{ key: "{name}" value: {{ string_value: "yes" }} }}'
    openvino_files.write_model(tmp_path, "m", config=config)
    flags = ["--exit-on-error=false", "--strict-readiness=false"]
    with served(tmp_path, *flags) as server, InferenceServerClient(server.grpc) as client:
        (entry,) = client.get_model_repository_index().models
        assert entry.state == "UNAVAILABLE"
        assert name in entry.reason
        assert "not supported" in entry.reason
