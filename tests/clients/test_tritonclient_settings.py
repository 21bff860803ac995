"""tritonclient reads and changes trace and log settings, sync and aio."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support import fixture_models
from tests.support.models import onnx_files
from tests.support.server_process import Served, served
from tests.support.triton_clients import FACES, tensor, triton_client
from tritonclient.utils import InferenceServerException

LOGS: dict[str, bool | int | str] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
KINDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def as_json(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: {KINDS[type(value)]: value} for name, value in settings.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    onnx_files.write_model(repository, "broken", onnx_files.simple(), config="no_such_field: 1")
    fixture_models.write_model(repository, "thrower", kind="throw", message="the core says this")
    mode = ["--model-control-mode", "explicit", "--load-model", "simple", "--load-model", "thrower"]
    with served(repository, *mode) as running:
        yield running


@pytest.fixture(params=FACES)
def client(server: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    with triton_client(request.param, server.grpc) as connected:
        yield connected
        connected.update_log_settings(LOGS)


def logged(server: Served, client: Any) -> str:
    """What an error in the core, a failed load and a good one, which is news, leave in the log."""
    before = len(server.log)
    with pytest.raises(InferenceServerException):
        client.infer("thrower", [tensor("INPUT0", np.zeros((1, 1), np.float32), "FP32")])
    with pytest.raises(InferenceServerException):
        client.load_model("broken")
    client.load_model("simple")
    client.update_log_settings({"log_info": True, "log_format": "default"})
    client.unload_model("simple")
    while not any("'simple' is unloaded" in line for line in server.log[before:]):
        assert client.is_server_live()
    return "".join(server.log[before:])


def test_trace_settings_are_read_for_the_server_and_for_a_model(client: Any) -> None:
    client.load_model("simple")
    for model in ("", "simple"):
        settings = client.get_trace_settings(model_name=model, as_json=True)["settings"]
        assert settings["trace_level"] == {"value": ["OFF"]}
        assert settings["trace_rate"] == {"value": ["1000"]}
        assert len(settings) == 6


def test_trace_settings_that_change_nothing_are_taken(client: Any) -> None:
    same = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": None}
    answer = client.update_trace_settings(settings=same, as_json=True)["settings"]
    assert answer["trace_mode"] == {"value": ["triton"]}


def test_tracing_cannot_be_turned_on(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="'trace_level' can not be") as caught:
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="unknown model : nobody") as caught:
        client.get_trace_settings("nobody")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_log_settings_are_read(client: Any) -> None:
    assert client.get_log_settings(as_json=True)["settings"] == as_json(LOGS)


def test_log_settings_are_changed_and_answered(client: Any) -> None:
    changes = {"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"}
    answer = client.update_log_settings(changes, as_json=True)["settings"]
    assert answer == as_json({**LOGS, **changes})
    assert client.get_log_settings(as_json=True)["settings"] == answer


def test_levels_change_while_the_server_runs(server: Served, client: Any) -> None:
    text = logged(server, client)
    assert "ERROR" in text and "the core says this" in text and "serves version" in text
    client.update_log_settings({"log_info": False})
    text = logged(server, client)
    assert "ERROR" in text and "the core says this" in text and "serves version" not in text
    client.update_log_settings({"log_error": False})
    text = logged(server, client)
    assert "ERROR" not in text and "the core says this" not in text and "serves version" in text


def test_log_file_cannot_be_changed_and_nothing_else_is_then(client: Any) -> None:
    text = "log file location can not be updated through network protocol"
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.update_log_settings({"log_info": False, "log_file": "/tmp/log"})
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert client.get_log_settings(as_json=True)["settings"] == as_json(LOGS)
