"""What is right is computed before LoadGen's clock runs, whoever stands before the target."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlperf import run as runs
from mlperf.cli import measure
from mlperf.run import Result
from mlperf.settings import Plan
from mlperf.targets import Completion, Counters, NativeSettings
from mlperf.workloads import Array, Workload

ANSWER = np.ones((1, 4), np.float32)
SUMMARY = "SUT name : fake\nResult is : VALID\n"


class Slow(Workload):
    """A workload that tells when its reference is computed."""

    def __init__(self, told: list[str]) -> None:
        inputs = {"x": np.zeros((2, 4), np.float32)}
        super().__init__(name="slow", onnx=b"", inputs=inputs, answer="y", window=2)
        self._told = told

    @cached_property
    def reference(self) -> Array:
        self._told.append("reference")
        return np.concatenate([ANSWER] * self.size)


class FakeTarget:
    """Completes in place, and tells that it was asked."""

    def __init__(self, told: list[str]) -> None:
        self._told = told
        self.on_done: Callable[[list[Completion]], None] = print

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        self._told.append("asked")
        self.on_done([Completion(tag, ANSWER.tobytes()) for tag, _ in entries])

    def answer(self, payload: bytes) -> Array:
        return np.frombuffer(payload, np.float32).reshape(1, 4)

    def counters(self) -> Counters:
        return Counters()

    def name(self) -> str:
        return "fake"

    def native(self, module: Any, settings: NativeSettings) -> Any:
        return module.Sut(self._told)

    def close(self) -> None:
        pass


class FakeNative:
    """The native system under test, whose run is over at once with one answer."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def run(self, output: str, **_: Any) -> None:
        self._told.append("asked")
        (Path(output) / "mlperf_log_summary.txt").write_text(SUMMARY)

    def progress(self) -> dict[str, Any]:
        return {"done": 1, "in_flight": 0, "last_done_ns": 0, "is_lost": False}

    def failures(self) -> dict[str, int]:
        return {}

    def answers(self) -> Iterator[tuple[int, bytes, int]]:
        yield 0, ANSWER.tobytes(), 1

    def tally(self) -> dict[str, Any]:
        times = dict.fromkeys(("mean_ns", "bin_ns", "first_ns", "last_ns"), 0)
        return {"count": 1, "quantiles_ns": [], "bins": [1], **times}

    def close(self) -> None:
        pass


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Sut=FakeNative)
    monkeypatch.setattr("mlperf.native_sut.load_module", lambda: module)


def plan(workload: Workload, sut: str, output: Path) -> Plan:
    return Plan(workload, "SingleStream", "performance", "engine", output, 0.05, sut=sut)


@pytest.mark.parametrize("sut", ["python", "native"])
def test_reference_is_there_before_the_run_begins(sut: str, native: None, tmp_path: Path) -> None:
    told: list[str] = []
    said: list[str] = []
    wanted = plan(Slow(told), sut, tmp_path)
    result = runs.run(wanted, FakeTarget(told), said.append)
    assert result.failed == 0 < result.times.count
    assert told[:2] == ["reference", "asked"]
    assert told.count("reference") == 1
    assert said[0] == "computing what is right for 2 samples, without the target"
    wanted.workload.prepare(said.append)
    assert told.count("reference") == 1, "it is computed once"


@pytest.mark.parametrize("sut", ["python", "native"])
def test_command_tells_that_it_computes_the_reference_and_then_asks(
    sut: str, native: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    monkeypatch.setattr("mlperf.cli.overhead_us", lambda plan: 0.0)
    result: Result = measure(plan(Slow(told), sut, tmp_path), FakeTarget(told), told.append)
    assert result.failed == 0 < result.times.count
    assert told[0].startswith("computing what is right for 2 samples")
    assert told[1] == "reference"
    assert told[2].startswith("computed in ")
    assert told[3] == "asked"
