"""tritonclient asks and controls, sync and aio: health, metadata, statistics, repository."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.models import onnx_files
from tests.support.server_process import Served, served
from tests.support.triton_clients import FACES, simple_inputs, triton_client
from tritonclient.utils import InferenceServerException

SIMPLE = """
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple(), config=SIMPLE)
    for name in ("plain", "spare"):
        onnx_files.write_model(repository, name, onnx_files.simple())
    flags = ["--model-control-mode", "explicit", "--load-model", "simple"]
    with served(repository, *flags, "--load-model", "plain", "--server-name", "triton") as running:
        yield running


@pytest.fixture(params=FACES)
def client(server: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    with triton_client(request.param, server.grpc) as connected:
        yield connected


def refusal(call: Any, *args: Any, **options: Any) -> tuple[str, str]:
    """Status and text of a call that must fail."""
    with pytest.raises(InferenceServerException) as caught:
        call(*args, **options)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_health(client: Any) -> None:
    assert client.is_server_live(headers={"test": "1"}) is True
    assert client.is_server_ready() is True
    assert client.is_model_ready("simple") is True
    assert client.is_model_ready("simple", "1", client_timeout=30.0) is True


@pytest.mark.parametrize(("model", "version"), [("simple", "2"), ("spare", ""), ("nobody", "")])
def test_what_does_not_serve_is_not_ready_and_no_error(
    client: Any, model: str, version: str
) -> None:
    assert client.is_model_ready(model, version) is False


def test_server_metadata_has_the_configured_name_and_what_works(client: Any) -> None:
    metadata = client.get_server_metadata(as_json=True)
    assert metadata["name"] == client.get_server_metadata().name == "triton"
    assert metadata["version"]
    working = {"statistics", "model_repository", "classification", "parameters", "logging"}
    assert working <= set(metadata["extensions"])
    assert not {"system_shared_memory", "trace"} & set(metadata["extensions"])


def test_model_metadata_has_the_batch_dimension(client: Any) -> None:
    metadata = client.get_model_metadata("simple", "1")
    assert (metadata.name, metadata.platform) == ("simple", "onnxruntime_onnx")
    assert list(metadata.versions) == ["1"]
    tensors = [*metadata.inputs, *metadata.outputs]
    assert [each.name for each in tensors] == ["INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1"]
    assert all((each.datatype, list(each.shape)) == ("INT32", [-1, 16]) for each in tensors)
    as_json = client.get_model_metadata("simple", as_json=True)
    assert as_json["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]}


def test_config_is_the_written_one(client: Any) -> None:
    config = client.get_model_config("simple").config
    assert (config.name, config.max_batch_size) == ("simple", 8)
    assert list(config.input[0].dims) == [16]
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert not config.HasField("sequence_batching")
    assert not config.HasField("ensemble_scheduling")


def test_config_as_json_has_the_names_of_the_file(client: Any) -> None:
    config = client.get_model_config("simple", as_json=True)["config"]
    assert config["max_batch_size"] == 8
    assert config["input"][1]["data_type"] == "TYPE_INT32"
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == "100"
    assert config["instance_group"][0]["count"] == 1


def test_config_that_nobody_wrote_is_completed(client: Any) -> None:
    config = client.get_model_config("plain").config
    assert config.backend == "onnxruntime"
    assert [each.name for each in config.output] == ["OUTPUT0", "OUTPUT1"]
    assert list(config.output[0].dims) == [16]
    assert config.max_batch_size > 1


def test_statistics_count_requests_and_rows(client: Any) -> None:
    client.load_model("spare")
    for rows in (1, 3):
        client.infer("spare", simple_inputs(rows))
    (stats,) = client.get_inference_statistics("spare", "1").model_stats
    assert (stats.name, stats.version) == ("spare", "1")
    assert (stats.inference_count, stats.execution_count) == (4, 2)
    times = stats.inference_stats
    for each in (times.success, times.queue, times.compute_input, times.compute_infer):
        assert each.count == 2
    assert times.success.ns >= times.queue.ns + times.compute_infer.ns
    (as_json,) = client.get_inference_statistics("spare", as_json=True)["model_stats"]
    assert as_json["inference_stats"]["compute_output"]["count"] == "2"
    client.unload_model("spare")


def test_statistics_of_all_models(client: Any) -> None:
    found = client.get_inference_statistics().model_stats
    assert {each.name for each in found} == {"simple", "plain"}


def test_refused_requests_are_in_the_statistics(client: Any) -> None:
    (before,) = client.get_inference_statistics("plain").model_stats
    refusal(client.infer, "plain", simple_inputs()[:1])
    client.infer("plain", simple_inputs())
    (after,) = client.get_inference_statistics("plain").model_stats
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1


def test_index_lists_what_is_loaded_and_what_is_not(client: Any) -> None:
    index = client.get_model_repository_index()
    found = {each.name: (each.version, each.state) for each in index.models}
    assert found["simple"] == found["plain"] == ("1", "READY")
    assert found["spare"][1] != "READY"
    names = [each["name"] for each in client.get_model_repository_index(as_json=True)["models"]]
    assert sorted(names) == ["plain", "simple", "spare"]


def test_model_is_loaded_and_unloaded(client: Any) -> None:
    client.load_model("spare")
    assert client.is_model_ready("spare")
    assert client.infer("spare", simple_inputs()).as_numpy("OUTPUT0")[0, 0] == 1
    client.unload_model("spare", unload_dependents=True)
    assert not client.is_model_ready("spare")
    assert refusal(client.infer, "spare", simple_inputs()) == (
        "NOT_FOUND",
        "Request for unknown model: 'spare' has no available versions",
    )


def test_override_replaces_the_configuration_until_the_next_load(client: Any) -> None:
    config = json.dumps({"max_batch_size": "16", "dynamic_batching": {}})
    client.load_model("simple", config=config)
    overridden = client.get_model_config("simple").config
    assert overridden.max_batch_size == 16
    assert not overridden.dynamic_batching.preferred_batch_size
    assert client.infer("simple", simple_inputs(16)).as_numpy("OUTPUT0").shape == (16, 16)
    client.load_model("simple")
    assert client.get_model_config("simple").config.max_batch_size == 8


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        ('"parameters": {"config": {{"max_batch_size": "16"}}}', "not a model configuration"),
        ("[1]", "expected a JSON object"),
        ('{"bogus": 1}', "bogus"),
        ('{"max_batch_size": -1}', "max_batch_size: expected 0 or more, got -1"),
        ('{"max_batch_size": 4, "input": [{"name": "NOPE"}]}', "NOPE"),
        ('{"sequence_batching": {}}', "'sequence_batching' is not supported"),
        ('{"backend": "python"}', "may not change the backend"),
        ('{"default_model_filename": "../x.onnx"}', "may not change the model file"),
        ('{"name": "other"}', "expected the name of the directory"),
    ],
)
def test_wrong_override_is_refused_and_the_model_serves_on(
    client: Any, config: str, fragment: str
) -> None:
    status, text = refusal(client.load_model, "simple", config=config)
    assert status == "INVALID_ARGUMENT"
    assert text.startswith("failed to load 'simple', ")
    assert fragment in text
    assert client.is_model_ready("simple")
    assert client.get_model_config("simple").config.max_batch_size == 8


def test_files_with_a_load_are_refused(client: Any) -> None:
    files = {"file:1/model.onnx": b"x"}
    status, text = refusal(client.load_model, "simple", config="{}", files=files)
    assert status == "UNIMPLEMENTED"
    assert "'file:1/model.onnx' is not supported" in text


def test_file_name_that_no_file_can_have_is_refused_as_triton_does(client: Any) -> None:
    files = {"file:" + "A" * 256: b"a"}
    status, text = refusal(client.load_model, "simple", config="{}", files=files)
    assert status == "INTERNAL"
    assert "failed to poll from model repository" in text
    assert client.is_server_live()


def test_unknown_model_can_not_be_loaded(client: Any) -> None:
    status, text = refusal(client.load_model, "wrong_model_name")
    assert status == "INTERNAL"
    assert text.startswith("failed to load 'wrong_model_name', failed to poll from model")


def test_unknown_model_can_not_be_unloaded(client: Any) -> None:
    status, text = refusal(client.unload_model, "wrong_model_name")
    assert status == "NOT_FOUND"
    assert "wrong_model_name" in text


@pytest.mark.parametrize(
    "method", ["get_model_metadata", "get_model_config", "get_inference_statistics"]
)
def test_questions_about_unknown_models_and_versions_are_not_found(
    client: Any, method: str
) -> None:
    unknown = "Request for unknown model: 'nobody' is not found"
    assert refusal(getattr(client, method), "nobody") == ("NOT_FOUND", unknown)
    unknown = "Request for unknown model: 'simple' version 99 is not found"
    assert refusal(getattr(client, method), "simple", "99") == ("NOT_FOUND", unknown)


@pytest.mark.parametrize("face", FACES)
def test_mode_none_takes_neither_loads_nor_unloads(face: str, tmp_path: Path) -> None:
    onnx_files.write_model(tmp_path, "simple", onnx_files.simple())
    with served(tmp_path) as server, triton_client(face, server.grpc) as client:
        text = "explicit model load / unload is not allowed if polling is enabled"
        for method in (client.load_model, client.unload_model):
            assert refusal(method, "simple") == ("UNAVAILABLE", text)
        assert client.infer("simple", simple_inputs()).as_numpy("OUTPUT0")[0, 0] == 1
