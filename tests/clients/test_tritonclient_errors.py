"""What tritonclient raises, sync and aio, for requests that cannot be answered."""

import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from tests.support.fixture_models import write_blocked, write_model
from tests.support.models import onnx_files
from tests.support.server_process import Served, served
from tests.support.triton_clients import FACES, simple_inputs, tensor, triton_client
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

CONFIG = """
platform: "onnxruntime_onnx"
max_batch_size: 8
"""

GAUGES = {
    "pending": re.compile(r'\npenstock_pending_requests\{model="blocked"[^}]*\} (\d+)'),
    "running": re.compile(r'\npenstock_running_requests\{model="blocked"[^}]*\} (\d+)'),
}
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple(), config=CONFIG)
    write_model(repository, "failer", kind="fail", message="not today", config="max_batch_size: 8")
    with served(repository) as server:
        yield server.grpc


@pytest.fixture(params=FACES)
def client(url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with triton_client(request.param, url) as connected:
        yield connected


def two(*shape: int) -> list[InferInput]:
    return [tensor(f"INPUT{n}", np.ones(shape, np.int32), "INT32") for n in range(2)]


def row(name: str = "INPUT0", dtype: Any = np.float32, datatype: str = "FP32") -> InferInput:
    return tensor(name, np.ones((1, 16), dtype), datatype)


def lying_input() -> InferInput:
    """Data of eight numbers under a shape of sixteen."""
    made = tensor("INPUT0", np.ones((1, 8), np.int32), "INT32")
    made.set_shape([1, 16])
    return made


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "too many rows": (
        {"inputs": two(9, 16)},
        "INVALID_ARGUMENT",
        "inference request batch-size must be <= 8 for 'simple'",
    ),
    "wrong shape": (
        {"inputs": two(1, 15)},
        "INVALID_ARGUMENT",
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,15]",
    ),
    "wrong rank": (
        {"inputs": two(1, 4, 4)},
        "INVALID_ARGUMENT",
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,4,4]",
    ),
    "wrong datatype": (
        {"inputs": [row(), simple_inputs()[1]]},
        "INVALID_ARGUMENT",
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    "missing input": (
        {"inputs": two(1, 16)[:1]},
        "INVALID_ARGUMENT",
        "expected 2 inputs but got 1 inputs for model 'simple'",
    ),
    "unknown input": (
        {"inputs": [two(1, 16)[0], row("NOPE", np.int32, "INT32")]},
        "INVALID_ARGUMENT",
        "NOPE",
    ),
    "too few bytes": (
        {"inputs": [lying_input(), two(1, 16)[1]]},
        "INVALID_ARGUMENT",
        "input byte size mismatch for input 'INPUT0'",
    ),
    "unknown output": (
        {"inputs": two(1, 16), "outputs": [InferRequestedOutput("NOPE")]},
        "INVALID_ARGUMENT",
        "unexpected inference output 'NOPE' for model 'simple'",
    ),
    "unknown version": (
        {"inputs": two(1, 16), "model_version": "99"},
        "NOT_FOUND",
        "Request for unknown model: 'simple' version 99 is not found",
    ),
    "version that is no number": (
        {"inputs": two(1, 16), "model_version": "abc"},
        "INVALID_ARGUMENT",
        "failed to get model version from specified version string 'abc'",
    ),
    "unknown model": (
        {"inputs": two(1, 16), "model_name": "nobody"},
        "NOT_FOUND",
        "Request for unknown model: 'nobody' is not found",
    ),
    "model that fails": (
        {"inputs": [row()], "model_name": "failer"},
        "INTERNAL",
        "not today",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_request_raises_status_and_text_of_triton(client: Any, case: str) -> None:
    options, status, fragment = REFUSED[case]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(**{"model_name": "simple", **options})
    assert caught.value.status() == f"StatusCode.{status}"
    assert fragment in caught.value.message()
    assert client.infer("simple", simple_inputs()).as_numpy("OUTPUT0")[0, 0] == 1


@pytest.mark.parametrize("face", FACES)
def test_no_server_is_unavailable(face: str) -> None:
    with triton_client(face, "127.0.0.1:1") as client:
        with pytest.raises(InferenceServerException) as caught:
            client.is_server_live()
        assert caught.value.status() == "StatusCode.UNAVAILABLE"


class Answer:
    """What the callback of async_infer brought."""

    def __init__(self) -> None:
        self.call: Any = None
        self.came = Event()
        self.result: Any = None
        self.error: Any = None
        self.arrived_s = 0.0

    def __call__(self, result: Any, error: Any) -> None:
        self.result, self.error = result, error
        self.arrived_s = time.monotonic()
        self.came.set()


@contextmanager
def blocked(folder: Path, config: str) -> Iterator[tuple[Served, InferenceServerClient, Path]]:
    """A server whose model waits for a file, and a client."""
    gate = folder / "gate"
    write_blocked(folder / "models", gate, config=config)
    with served(folder / "models") as server, InferenceServerClient(server.grpc) as client:
        try:
            yield server, client, gate
        finally:
            gate.touch()


def await_gauge(server: Served, name: str, count: int) -> None:
    """Reads the metrics until so many requests are pending or running."""
    deadline_s = time.monotonic() + PATIENCE_S
    text = ""
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(f"http://{server.metrics}/metrics") as reply:
            text = reply.read().decode()
        found = GAUGES[name].search(text)
        if found and int(found[1]) == count:
            return
    pytest.fail(f"never {count} {name}:\n{text}")


def ask(server: Served, client: InferenceServerClient, *, pending: int, **options: Any) -> Answer:
    """Sends a request to the busy model; returns once so many are pending."""
    answer = Answer()
    answer.call = client.async_infer("blocked", [row()], answer, **options)
    await_gauge(server, "running", 1)
    await_gauge(server, "pending", pending)
    return answer


def test_timeout_of_a_queued_request_is_unavailable(tmp_path: Path) -> None:
    policy = "dynamic_batching { default_queue_policy { allow_timeout_override: true } }"
    with blocked(tmp_path, policy) as (server, client, gate):
        running = ask(server, client, pending=0)
        with pytest.raises(InferenceServerException, match="Request timeout expired") as caught:
            client.infer("blocked", [row()], timeout=50_000)
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        gate.touch()
        assert running.came.wait(PATIENCE_S)
        assert running.error is None


def test_full_queue_is_unavailable(tmp_path: Path) -> None:
    policy = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    with blocked(tmp_path, policy) as (server, client, gate):
        accepted = [ask(server, client, pending=count) for count in range(2)]
        with pytest.raises(InferenceServerException, match="Exceeds maximum queue size") as caught:
            client.infer("blocked", [row()])
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        gate.touch()
        for answer in accepted:
            assert answer.came.wait(PATIENCE_S)
            assert answer.error is None


def test_urgent_request_overtakes_one_that_came_before(tmp_path: Path) -> None:
    policy = "dynamic_batching { priority_levels: 2 default_priority_level: 2 }"
    with blocked(tmp_path, policy) as (server, client, gate):
        running = ask(server, client, pending=0)
        ordinary = ask(server, client, pending=1, priority=2)
        urgent = ask(server, client, pending=2, priority=1)
        gate.touch()
        for answer in (running, ordinary, urgent):
            assert answer.came.wait(PATIENCE_S)
            assert answer.error is None
        (stats,) = client.get_inference_statistics("blocked").model_stats
    assert stats.inference_stats.success.count == 3
    assert urgent.arrived_s < ordinary.arrived_s


def test_cancelled_call_ends_as_cancelled_and_leaves_the_queue(tmp_path: Path) -> None:
    with blocked(tmp_path, "dynamic_batching { }") as (server, client, gate):
        running = ask(server, client, pending=0)
        queued = ask(server, client, pending=1)
        queued.call.cancel()
        assert queued.came.wait(PATIENCE_S)
        assert queued.error.status() == "StatusCode.CANCELLED"
        await_gauge(server, "pending", 0)
        gate.touch()
        assert running.came.wait(PATIENCE_S)
        assert running.result.as_numpy("OUTPUT0").tolist() == [[1.0] * 16]


def test_answers_reach_the_callbacks_of_their_own_requests(url: str) -> None:
    with InferenceServerClient(url) as client:
        answers = [Answer() for _ in range(100)]
        for number, answer in enumerate(answers):
            inputs = simple_inputs(start=number)
            client.async_infer("simple", inputs, answer, request_id=str(number))
        for number, answer in enumerate(answers):
            assert answer.came.wait(PATIENCE_S)
            assert answer.error is None
            assert answer.result.get_response().id == str(number)
            assert answer.result.as_numpy("OUTPUT0")[0, 0] == number + 1


def test_failure_reaches_the_callback(url: str) -> None:
    answer = Answer()
    with InferenceServerClient(url) as client:
        client.async_infer("nobody", simple_inputs(), answer)
        assert answer.came.wait(PATIENCE_S)
    assert answer.result is None
    assert answer.error.status() == "StatusCode.NOT_FOUND"
    assert "Request for unknown model: 'nobody' is not found" in answer.error.message()
