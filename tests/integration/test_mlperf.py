"""The MLPerf harness with the official LoadGen: every scenario and target, and runs that fail."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlperf import report
from mlperf.accuracy import accuracy
from mlperf.http_target import HttpTarget
from mlperf.run import PARTIAL, calibrate, expecting, run, run_long_enough
from mlperf.settings import SCENARIOS, Plan
from mlperf.targets import EngineTarget, GrpcTarget, NullTarget, Target
from mlperf.workloads import Array, Workload, digits
from tests.support.run_server import ServerProcess, serve_process

pytestmark = pytest.mark.any_transport

ROOT = Path(__file__).resolve().parents[2]
QUICK_S = 0.2
PATIENT_MS = 60_000.0


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
        workload, scenario, output=output, duration_s=QUICK_S, bound_ms=PATIENT_MS, **values
    )


def quiet(_text: str) -> None:
    """Progress that nobody wants."""


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_every_scenario_is_valid_over_grpc(
    scenario: str, workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    target = GrpcTarget(workload, server.addresses["gRPC"])
    wanted = plan(workload, scenario, tmp_path / "run")
    found = await asyncio.to_thread(calibrate, wanted, target, 0.05)
    result = await asyncio.to_thread(run_long_enough, expecting(wanted, found), target, quiet)
    target.close()
    assert result.reasons == []
    assert result.verdict == "VALID"
    assert result.ticks[-1].counters.requests >= result.times.count > 0
    report.write(result, {})
    for name in ("report.md", "report.html", "results.json"):
        assert "QUICK" in (tmp_path / "run" / name).read_text()
    assert (tmp_path / "run/mlperf_log_detail.txt").stat().st_size > 0
    assert not (tmp_path / "run" / PARTIAL).exists()


async def test_accuracy_is_what_the_classifier_has(
    workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    addresses = server.addresses
    target = HttpTarget(workload, addresses["HTTP"], addresses["gRPC"], 4)
    wanted = plan(workload, "Offline", tmp_path / "run", mode="accuracy", target="http")
    result = await asyncio.to_thread(run, wanted, target, quiet)
    target.close()
    assert result.verdict == "VALID"
    share = accuracy(workload, tmp_path / "run/mlperf_log_accuracy.json")
    assert share == np.mean(workload.reference.argmax(1) == workload.truth)


def test_the_engine_in_process_answers(workload: Workload, tmp_path: Path) -> None:
    workload.write_repository(tmp_path / "models")
    target = EngineTarget(workload, tmp_path / "models")
    result = run(plan(workload, "Server", tmp_path / "run", target="engine"), target, quiet)
    target.close()
    assert (result.verdict, result.reasons) == ("VALID", [])


class _Liar(NullTarget):
    """Answers every sample as if it were the next."""

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        size = len(self._answers)
        super().submit([(tag, (sample + 1) % size) for tag, sample in entries])


class _Mute(NullTarget):
    """Answers with what is no answer."""

    def answer(self, payload: bytes) -> Array:
        raise ValueError("there is no output")


@pytest.mark.parametrize(("kind", "why"), [(_Liar, "beyond the tolerance"), (_Mute, "no output")])
def test_wrong_answers_make_a_run_invalid(
    kind: type[NullTarget], why: str, workload: Workload, tmp_path: Path
) -> None:
    target: Target = kind(workload)
    result = run(plan(workload, "Server", tmp_path / "run"), target, quiet)
    assert result.verdict == "INVALID"
    assert any("wrong answer" in reason and why in reason for reason in result.reasons)


async def harness(*flags: str) -> asyncio.subprocess.Process:
    command = ["-m", "bench.mlperf", "--scenario", "SingleStream", *flags]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=pipe, stderr=pipe
    )


@pytest.mark.slow
@pytest.mark.parametrize("sut", ["native", "python"])
@pytest.mark.parametrize(
    ("blow", "status", "why"),
    [("server", 1, "the target has gone"), ("harness", 130, "interrupted")],
)
async def test_a_run_that_cannot_end_is_invalid_and_its_logs_partial(
    blow: str, status: int, why: str, sut: str, server: ServerProcess, tmp_path: Path
) -> None:
    address = server.addresses["gRPC"]
    output = tmp_path / "run"
    flags = ["--address", address, "--duration", "120", "--sut", sut, "--output", str(output)]
    process = await harness(*flags)
    assert process.stderr is not None
    while b"answers" not in (line := await process.stderr.readline()):
        assert line, "the harness ended before it was interrupted"
    if blow == "server":
        os.kill(server.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGINT)
    printed, _ = await process.communicate()
    assert process.returncode == status
    assert b"INVALID" in printed and why in printed.decode()
    assert (output / PARTIAL).exists()
    assert why in (output / "report.md").read_text()


@pytest.mark.slow
async def test_a_target_that_is_down_is_said_so(tmp_path: Path) -> None:
    process = await harness("--address", "127.0.0.1:1", "--output", str(tmp_path))
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"INVALID: the target grpc is down" in errors
