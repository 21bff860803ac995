"""A repository written for Triton's onnxruntime backend is served as it is."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.models import onnx_files, triton_repository
from tests.support.server_process import served
from tests.support.triton_clients import tensor
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.any_transport

ACCELERATED = """
optimization { execution_accelerators { cpu_execution_accelerator: [ { name: "openvino" } ] } }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    triton_repository.write_repository(folder)
    return folder


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[InferenceServerClient]:
    flags = ["--model-control-mode=explicit", "--load-model=*"]
    with served(repository, *flags) as server, InferenceServerClient(server.grpc) as connected:
        yield connected


def images(rows: int) -> Any:
    return np.random.default_rng(7).random((rows, 3, 8, 8), np.float32)


def digest(repository: Path) -> dict[str, str]:
    files = (path for path in repository.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_check_finds_no_fault(repository: Path) -> None:
    command = [sys.executable, "-m", "penstock", "check", str(repository)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_version_of_the_policies_is_ready(client: InferenceServerClient) -> None:
    index = client.get_model_repository_index().models
    ready = {(each.name, each.version) for each in index if each.state == "READY"}
    assert ready == {
        ("bert", "2"),
        ("bert", "10"),
        ("densenet_onnx", "1"),
        ("minimal", "1"),
        ("resnet", "1"),
        ("text", "1"),
        ("text", "3"),
    }
    assert client.is_server_ready()


def test_serving_changes_no_file(repository: Path) -> None:
    before = digest(repository)
    with served(repository):
        assert digest(repository) == before


def test_reshaped_classifier_names_its_classes(client: InferenceServerClient) -> None:
    (image,) = images(1)
    image[2] += 1
    outputs = [InferRequestedOutput("fc6_1", class_count=2)]
    inputs = [tensor("data_0", image, "FP32")]
    result = client.infer("densenet_onnx", inputs, outputs=outputs)
    best, second = (text.decode().split(":") for text in result.as_numpy("fc6_1"))
    assert best[1:] == ["2", "blue"]
    assert second[2] in ("red", "green")
    means = client.infer("densenet_onnx", inputs).as_numpy("fc6_1")
    np.testing.assert_allclose(means, image.mean((1, 2)), rtol=1e-5)


def test_metadata_is_of_the_configured_shape(client: InferenceServerClient) -> None:
    metadata = client.get_model_metadata("densenet_onnx")
    assert list(metadata.inputs[0].shape) == [3, 8, 8]
    assert list(metadata.outputs[0].shape) == [3]
    batched = client.get_model_metadata("resnet")
    assert list(batched.inputs[0].shape) == [-1, 3, 8, 8]
    assert batched.platform == "onnxruntime_onnx"
    assert list(client.get_model_metadata("bert").versions) == ["2", "10"]


@pytest.mark.parametrize("rows", [1, 5, 32])
def test_batched_classifier_answers_every_row(client: InferenceServerClient, rows: int) -> None:
    batch = images(rows)
    result = client.infer("resnet", [tensor("input.1", batch, "FP32")])
    np.testing.assert_allclose(result.as_numpy("output"), batch.mean((2, 3)), rtol=1e-5)


def test_warm_up_ran_and_is_in_no_statistics(client: InferenceServerClient) -> None:
    client.load_model("resnet")
    (stats,) = client.get_inference_statistics("resnet").model_stats
    assert (stats.inference_count, stats.inference_stats.success.count) == (0, 0)


@pytest.mark.parametrize(("version", "factor"), [("", 10), ("10", 10), ("2", 2)])
def test_versions_answer_for_themselves(
    client: InferenceServerClient, version: str, factor: int
) -> None:
    words = np.array([[5, 6, 7], [8, 9, 0]], np.int64)
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int64)
    inputs = [tensor("input_ids", words, "INT64"), tensor("attention_mask", mask, "INT64")]
    options = {"priority": 1, "timeout": 30_000_000}
    result = client.infer("bert", inputs, model_version=version, **options)
    assert result.as_numpy("logits").tolist() == (words * mask * factor).tolist()
    assert result.get_response().model_version == str(factor)


def test_version_beyond_the_policy_is_not_found(client: InferenceServerClient) -> None:
    words = np.ones((1, 3), np.int64)
    inputs = [tensor("input_ids", words, "INT64"), tensor("attention_mask", words, "INT64")]
    with pytest.raises(InferenceServerException, match="'bert' version 1 is not found"):
        client.infer("bert", inputs, model_version="1")


def test_model_file_of_another_name(client: InferenceServerClient) -> None:
    words = np.array([["a", "b"], ["c", "d"], ["", "f"]], object)
    result = client.infer("text", [tensor("INPUT0", words, "BYTES")], model_version="3")
    assert result.as_numpy("OUTPUT0").tolist() == [[b"a", b"b"], [b"c", b"d"], [b"", b"f"]]


def test_configuration_without_tensors_is_completed(client: InferenceServerClient) -> None:
    config = client.get_model_config("minimal").config
    assert config.max_batch_size == 64
    assert [each.name for each in config.input] == ["INPUT0", "INPUT1"]
    ones = np.ones((64, 16), np.float32)
    result = client.infer("minimal", [tensor(f"INPUT{n}", ones, "FP32") for n in range(2)])
    assert (result.as_numpy("OUTPUT0") == 2).all()


def test_configuration_is_told_as_it_was_written(client: InferenceServerClient) -> None:
    config = client.get_model_config("resnet").config
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 2)]  # KIND_CPU
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8, 16, 32]
    assert config.dynamic_batching.preserve_ordering
    assert config.optimization.graph.level == 1
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 32]
    policy = client.get_model_config("bert").config.dynamic_batching
    assert policy.default_queue_policy.max_queue_size == 256
    assert policy.priority_queue_policy[1].max_queue_size == 512


@pytest.mark.parametrize("model", ["bert", "densenet_onnx", "minimal", "resnet", "text"])
def test_told_configuration_is_a_valid_override(client: InferenceServerClient, model: str) -> None:
    config = client.get_model_config(model, as_json=True)["config"]
    client.load_model(model, config=json.dumps(config))
    assert client.get_model_config(model, as_json=True)["config"] == config
    client.load_model(model)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ACCELERATED, "optimization.execution_accelerators"),
        ('model_operations { op_library_filename: "custom.so" }', "model_operations"),
        ("sequence_batching { }", "sequence_batching"),
        ("response_cache { enable: true }", "response_cache"),
    ],
)
def test_field_that_has_no_effect_here_is_refused_by_name(
    tmp_path: Path, config: str, field: str
) -> None:
    onnx_files.write_model(tmp_path, "simple", onnx_files.simple(), config=config)
    flags = ["--exit-on-error=false", "--strict-readiness=false"]
    with served(tmp_path, *flags) as server, InferenceServerClient(server.grpc) as client:
        (entry,) = client.get_model_repository_index().models
        assert entry.state == "UNAVAILABLE"
        assert field in entry.reason
        assert "not supported" in entry.reason
