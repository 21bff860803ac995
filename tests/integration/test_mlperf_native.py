"""The native system under test, built with LoadGen's sources: every scenario, every target."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlperf import report
from mlperf.accuracy import accuracy
from mlperf.native_sut import load_module
from mlperf.overhead import overhead_us
from mlperf.run import expecting, probe, run, run_long_enough
from mlperf.settings import SCENARIOS, Plan
from mlperf.targets import EngineTarget, GrpcTarget, NativeSettings, NullTarget, Target
from mlperf.workloads import Workload, digits
from tests.support.run_server import ServerProcess, serve_process

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

PATIENT_MS = 60_000.0


@pytest.fixture(scope="module", autouse=True)
def module() -> Any:
    found = load_module()
    assert found is not None, "it is built by `make loadgen`"
    return found


@pytest.fixture(scope="module")
def workload() -> Workload:
    return digits()


@pytest.fixture
async def server(workload: Workload, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    workload.write_repository(tmp_path / "models")
    async with serve_process(tmp_path / "models") as running:
        yield running


def plan(workload: Workload, scenario: str, output: Path, **more: Any) -> Plan:
    values = {"mode": "performance", "target": "grpc", "rate": 500.0, **more}
    return Plan(
        workload,
        scenario,
        output=output,
        duration_s=0.2,
        bound_ms=PATIENT_MS,
        sut="native",
        **values,
    )


def quiet(_text: str) -> None:
    """Progress that nobody wants."""


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_every_scenario_is_valid_over_grpc(
    scenario: str, workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    target = GrpcTarget(workload, server.addresses["gRPC"])
    wanted = plan(workload, scenario, tmp_path / "run", rate=0 if scenario == "Offline" else 500.0)
    found = await asyncio.to_thread(probe, wanted, target)
    result = await asyncio.to_thread(run_long_enough, expecting(wanted, found), target, quiet)
    target.close()
    assert result.reasons == []
    assert result.verdict == "VALID"
    assert result.ticks[-1].counters.requests >= result.times.count > 0
    assert sum(result.times.bins) == result.times.count
    assert "(Network SUT)" in result.system and result.system.startswith("penstock ")
    report.write(result, {})
    text = (tmp_path / "run/report.md").read_text()
    assert "C++" in text and "QUICK" in text
    assert ("query dispatch library" in text) == (scenario in ("Server", "Offline"))


@pytest.mark.parametrize("scenario", ["SingleStream", "Server", "Offline"])
def test_the_engine_in_process_answers(scenario: str, workload: Workload, tmp_path: Path) -> None:
    workload.write_repository(tmp_path / "models")
    target = EngineTarget(workload, tmp_path / "models")
    wanted = plan(workload, scenario, tmp_path / "run", target="engine")
    result = run_long_enough(wanted, target, quiet)
    target.close()
    assert (result.verdict, result.reasons) == ("VALID", [])
    assert result.ticks[-1].counters.requests >= result.times.count > 0


async def test_accuracy_is_what_the_classifier_has(
    workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    target = GrpcTarget(workload, server.addresses["gRPC"])
    wanted = plan(workload, "Offline", tmp_path / "run", mode="accuracy")
    result = await asyncio.to_thread(run, wanted, target, quiet)
    target.close()
    assert (result.verdict, result.reasons) == ("VALID", [])
    share = accuracy(workload, tmp_path / "run/mlperf_log_accuracy.json")
    assert share == np.mean(workload.reference.argmax(1) == workload.truth)


class _Liar(NullTarget):
    """Answers every sample as if it were the next."""

    def native(self, module: Any, settings: NativeSettings) -> Any:
        self._answers = [*self._answers[1:], self._answers[0]]
        return super().native(module, settings)


class _Mute(NullTarget):
    """Answers with what is no answer."""

    def native(self, module: Any, settings: NativeSettings) -> Any:
        self._answers = [b"\xff"] * len(self._answers)
        return super().native(module, settings)


@pytest.mark.parametrize("kind", [_Liar, _Mute])
def test_every_wrong_answer_is_counted_and_makes_a_run_invalid(
    kind: type[NullTarget], workload: Workload, tmp_path: Path
) -> None:
    target: Target = kind(workload)
    result = run(plan(workload, "Server", tmp_path / "run", target="null"), target, quiet)
    assert result.verdict == "INVALID"
    assert any("wrong answer" in reason for reason in result.reasons)


def test_the_harness_has_an_overhead(workload: Workload, tmp_path: Path) -> None:
    assert overhead_us(plan(workload, "Server", tmp_path / "run")) > 0
    assert (tmp_path / "run/overhead/mlperf_log_summary.txt").exists()


def test_what_loadgen_does_not_have_is_refused_by_name(module: Any, tmp_path: Path) -> None:
    def start(**more: Any) -> None:
        values = {
            "scenario": "Offline",
            "mode": "PerformanceOnly",
            "settings": {},
            "output": str(tmp_path),
            "library": "toy",
            "name": "toy",
            "is_network": False,
        }
        module.Sut.null(messages=[b""], gives_tensors=False).run(**values | more)

    with pytest.raises(RuntimeError, match="no setting nonsense"):
        start(settings={"nonsense": 1})
    with pytest.raises(RuntimeError, match="min_query_count must be whole"):
        start(settings={"min_query_count": 1.5})
    with pytest.raises(RuntimeError, match="no scenario or mode Twice"):
        start(scenario="Twice")
