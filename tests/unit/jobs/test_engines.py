"""What engines put on the wire and take from it: in process with a core that echoes, and mocked."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import codec
from penstock._messages import jobs_pb, pb
from penstock.errors import (
    DeadlineExceededError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from penstock.jobs.failures import EngineError, FailureKind, JobError, TemporaryError
from penstock.jobs.local import LocalEngine, directory_digest
from penstock.jobs.model import TensorRows
from penstock.jobs.remote import RemoteEngine
from penstock_client import AsyncClient, AsyncMockTransport, RetryPolicy
from penstock_client import DeadlineExceededError as ClientDeadlineExceededError
from penstock_client import UnavailableError as ClientUnavailableError
from penstock_client._messages import pb as client_pb


class EchoCore:
    """Answers a request with its own tensors, OUT for IN, or fails it as told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.requests: list[Any] = []
        self.backgrounds: list[bool] = []

    async def infer(
        self, request: bytes, deadline: int, caller: Any, *, background: bool = False
    ) -> bytes:
        self.backgrounds.append(background)
        if self.failure is not None:
            raise self.failure
        message = pb.ModelInferRequest.FromString(request)
        self.requests.append(message)
        answer = pb.ModelInferResponse(model_name=message.model_name)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
            answer.outputs.add(name="OUT", datatype=tensor.datatype, shape=tensor.shape)
            answer.raw_output_contents.append(raw)
        return answer.SerializeToString()


def engine(
    core: Any, datatype: str, shape: tuple[int, ...], max_batch_size: int, **options: Any
) -> LocalEngine:
    tensors = [(codec.TensorMetadata(name, datatype, shape),) for name in ("IN", "OUT")]

    def metadata(name: str, version: str) -> codec.ModelMetadata:
        if name != "m":
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        return codec.ModelMetadata(name, ("2", "10"), "", tensors[0], tensors[1])

    def config(name: str, version: str) -> codec.ModelConfig:
        return codec.ModelConfig(name, max_batch_size=max_batch_size)

    digest = "digest of {}".format
    return LocalEngine(core, metadata, config, lambda name, version: digest(version), **options)


async def echoed(datatype: str, shape: tuple[int, ...], values: Any, batch: int = 8) -> Any:
    """What comes back, and the shape that was sent."""
    core = EchoCore()
    local = engine(core, datatype, shape, batch)
    model = await local.describe("m", "")
    assert (model.version, model.digest) == ("10", "digest of 10")
    row = model.inputs[0].wire_shape if datatype == "BYTES" else values.shape[1:]
    rows = TensorRows("IN", datatype, row, values)
    answer = await local.infer(model, [rows])
    return answer["OUT"], tuple(core.requests[0].inputs[0].shape)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", "<f2", "<f4", "<f8"])
async def test_numbers_come_back_as_they_went(dtype: str) -> None:
    names = {"?": "BOOL", "u1": "UINT8", "<i8": "INT64", "<f2": "FP16", "<f4": "FP32"}
    values = np.array([[1, 0, 1], [0, 1, 1]]).astype(dtype)
    answer, shape = await echoed(names.get(dtype, "FP64"), (-1, 3), values)
    assert (shape, answer.dtype, answer.tolist()) == ((2, 3), values.dtype, values.tolist())


async def test_rows_that_are_not_contiguous_are_sent_right() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    answer, _ = await echoed("FP32", (-1, 3), values)
    assert answer.tolist() == values.tolist()


async def test_no_values_are_sent_as_none() -> None:
    answer, shape = await echoed("FP32", (-1, -1), np.zeros((2, 0), np.float32))
    assert (shape, answer.shape) == ((2, 0), (2, 0))


async def test_bytes_come_back_as_they_went() -> None:
    values = pa.array([b"a", b"", "grüße".encode(), b"\x00" * 70000], pa.large_binary())
    answer, shape = await echoed("BYTES", (-1, 2), values)
    assert shape == (2, 2)
    assert answer.ravel().tolist() == values.to_pylist()


async def test_bfloat16_is_float32_on_this_side() -> None:
    answer, _ = await echoed("BF16", (-1, 1), np.array([[1.5], [-2.0]], np.float32))
    assert (answer.dtype, answer.ravel().tolist()) == (np.float32, [1.5, -2.0])


async def test_model_that_does_not_batch_gets_a_row_as_it_is() -> None:
    answer, shape = await echoed("FP32", (3,), np.ones((1, 3), np.float32), batch=0)
    assert (shape, answer.shape) == ((3,), (1, 3))


async def test_model_with_a_batch_of_its_own_gets_a_one_before_the_row() -> None:
    answer, shape = await echoed("FP32", (-1, 3), np.ones((1, 3), np.float32), batch=0)
    assert (shape, answer.shape) == ((1, 3), (1, 3))


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (UnavailableError("full"), FailureKind.RETRY),
        (ResourceExhaustedError("too large"), FailureKind.ROWS),
        (ResourceExhaustedError("rate", 100), FailureKind.RETRY),
        (NotFoundError("gone"), FailureKind.FATAL),
    ],
)
async def test_failures_of_the_core_say_what_follows(failure: Exception, kind: Any) -> None:
    local = engine(EchoCore(failure), "FP32", (-1, 1), 8)
    model = await local.describe("m", "")
    rows = TensorRows("IN", "FP32", (1,), np.ones((1, 1), np.float32))
    with pytest.raises(EngineError) as caught:
        await local.infer(model, [rows])
    assert caught.value.kind is kind


async def test_unknown_model_ends_the_job() -> None:
    with pytest.raises(JobError, match="unknown model: 'x'"):
        await engine(EchoCore(), "FP32", (-1, 1), 8).describe("x", "")


ONE_ROW = TensorRows("IN", "FP32", (1,), np.ones((1, 1), np.float32))


async def test_core_of_its_own_gets_ordinary_requests() -> None:
    core = EchoCore()
    local = engine(core, "FP32", (-1, 1), 8)
    model = await local.describe("m", "")
    await local.infer(model, [ONE_ROW])
    assert (core.backgrounds, model.most_request_rows) == ([False], 0)


class WaitingCore(EchoCore):
    """Answers a request only once the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.deadlines: list[int] = []

    async def infer(
        self, request: bytes, deadline: int, caller: Any, *, background: bool = False
    ) -> bytes:
        self.deadlines.append(deadline)
        await self.gate.wait()
        return await super().infer(request, deadline, caller, background=background)


class Heard(logging.Handler):
    """Calls back with each message."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self.hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self.hear(record.getMessage())


async def test_request_without_a_turn_in_the_background_waits_on_and_says_so() -> None:
    core = WaitingCore()
    local = engine(core, "FP32", (-1, 1), 8, background_batch_size=2, timeout_s=0.01)
    model = await local.describe("m", "")
    assert (model.max_batch_size, model.most_request_rows) == (8, 2)
    told: list[str] = []

    def hear(message: str) -> None:
        told.append(message)
        if len(told) == 3:
            core.gate.set()

    handler = Heard(hear)
    logging.getLogger("penstock.jobs").addHandler(handler)
    try:
        answer = await local.infer(model, [ONE_ROW])
    finally:
        logging.getLogger("penstock.jobs").removeHandler(handler)
    assert answer["OUT"].tolist() == [[1.0]]
    assert (core.backgrounds, core.deadlines) == ([True], [0])
    text = "a job has waited 0.01 s for model 'm': it is busy with other requests, or slow"
    assert told == [text] * 3


async def test_deadline_of_the_models_own_is_a_failure_like_any_other() -> None:
    core = EchoCore(DeadlineExceededError("the worker took longer than 5 s"))
    local = engine(core, "FP32", (-1, 1), 8, background_batch_size=0)
    model = await local.describe("m", "")
    with pytest.raises(EngineError, match="DEADLINE_EXCEEDED: the worker") as caught:
        await local.infer(model, [ONE_ROW])
    assert (caught.value.kind, caught.value.is_suspect) == (FailureKind.RETRY, True)
    assert (core.backgrounds, caught.value.waited_s) == ([True], 0.0)


async def test_other_failures_in_the_background_are_the_jobs() -> None:
    core = EchoCore(UnavailableError("full"))
    local = engine(core, "FP32", (-1, 1), 8, background_batch_size=0)
    model = await local.describe("m", "")
    with pytest.raises(EngineError, match="UNAVAILABLE: full") as caught:
        await local.infer(model, [ONE_ROW])
    assert caught.value.waited_s > 0


def test_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    def write(folder: str, files: Mapping[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return directory_digest(tmp_path / folder, ("1", "config.pbtxt"))

    first = write("a", {"1/model": "x", "config.pbtxt": "c", "2/model": "other"})
    assert first == write("b", {"config.pbtxt": "c", "1/model": "x"})
    assert first != write("c", {"1/model": "y", "config.pbtxt": "c"})
    assert first != write("d", {"1/renamed": "x", "config.pbtxt": "c"})
    assert first != write("e", {"1/model": "x"})


def remote(failing: bool = False, **options: Any) -> RemoteEngine:
    """A client of a server that echoes "m", but for background requests, which are late."""

    async def answer(call: Any, request: Any) -> Any:
        if failing:
            raise ClientUnavailableError("away")
        if call.method.name == "ModelMetadata":
            tensor = {"datatype": "BYTES", "shape": [-1, 2]}
            return call.method.response(
                name="m",
                versions=["9", "10"],
                inputs=[{"name": "IN", **tensor}],
                outputs=[{"name": "OUT", **tensor}],
            )
        if call.method.name == "ModelConfig":
            return call.method.response(config=client_pb.ModelConfig(name="m", max_batch_size=4))
        assert request.model_version == "10"
        if request.parameters["penstock_background"].bool_param:
            raise ClientDeadlineExceededError("late")
        (sent,) = request.inputs
        output = {"name": "OUT", "datatype": sent.datatype, "shape": sent.shape}
        raw = request.raw_input_contents
        return call.method.response(outputs=[output], raw_output_contents=raw)

    transport = AsyncMockTransport(answer)
    retry = RetryPolicy(max_attempts=1)
    return RemoteEngine(AsyncClient("mock", transport=transport, retry=retry), **options)


async def test_server_answers_with_one_version_all_along() -> None:
    engine = remote()
    model = await engine.describe("m", "")
    assert (model.version, model.max_batch_size) == ("10", 4)
    assert model.digest.startswith("config:")
    values = pa.array([b"a", b"b", b"", b"d"], pa.large_binary())
    answer = await engine.infer(model, [TensorRows("IN", "BYTES", (2,), values)])
    assert answer["OUT"].tolist() == [[b"a", b"b"], [b"", b"d"]]


async def test_late_request_in_a_servers_background_is_no_fault_of_its_rows() -> None:
    engine = remote(background=True)
    model = await engine.describe("m", "")
    values = pa.array([b"a", b"b"], pa.large_binary())
    with pytest.raises(EngineError, match="DEADLINE_EXCEEDED: late") as caught:
        await engine.infer(model, [TensorRows("IN", "BYTES", (2,), values)])
    assert (caught.value.kind, caught.value.is_suspect) == (FailureKind.RETRY, False)


async def test_server_that_is_away_is_temporary() -> None:
    with pytest.raises(TemporaryError, match="model 'm': UNAVAILABLE: away"):
        await remote(failing=True).describe("m", "")


def test_job_survives_being_kept() -> None:
    spec = codec.JobSpec("m", maps={"X": ("a", "b")}, keep=("k",), limit=0)
    job = codec.JobView("id", spec, "RUNNING", rows=3)
    assert codec.job_from_dict(json.loads(json.dumps(codec.job_to_dict(job)))) == job


def test_job_messages_keep_what_is_absent_apart_from_zero() -> None:
    for limit in (None, 0, 5):
        job = codec.JobView("id", codec.JobSpec("m", limit=limit), rows_total=limit)
        encoded = codec.encode_job(job)
        submitted = jobs_pb.SubmitRequest(id="id", spec=jobs_pb.Job.FromString(encoded).spec)
        assert codec.parse_submit(submitted.SerializeToString()) == ("id", job.spec)
