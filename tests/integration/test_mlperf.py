"""The MLPerf harness with the official LoadGen: every scenario and target, and runs that fail."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlperf import report
from mlperf.accuracy import accuracy
from mlperf.folder import PARTIAL
from mlperf.http_target import HttpTarget
from mlperf.native_sut import load_module
from mlperf.overhead import overhead_us
from mlperf.run import Result, calibrate, expecting, probe, run, run_long_enough
from mlperf.search import search
from mlperf.settings import SCENARIOS, Plan
from mlperf.targets import Completion, EngineTarget, GrpcTarget, NullTarget, Target
from mlperf.workloads import Workload, digits
from tests.support.run_server import ServerProcess, serve_process

pytestmark = pytest.mark.any_transport

ROOT = Path(__file__).resolve().parents[2]
QUICK_S = 0.2
PATIENT_MS = 60_000.0
SUTS = ["python", pytest.param("native", marks=pytest.mark.slow)]  # `make slow` builds it


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


def measured(wanted: Plan, target: Target) -> Result:
    """As the command does it."""
    found = calibrate(wanted, target, 0.05)
    if wanted.sut == "native":
        found = probe(wanted, found, target)
    return run_long_enough(expecting(wanted, found), target, quiet)


@pytest.mark.parametrize("sut", SUTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_every_scenario_is_valid_over_grpc(
    scenario: str, sut: str, workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    target = GrpcTarget(workload, server.addresses["gRPC"])
    rate = 0.0 if scenario == "Offline" else 500.0
    wanted = plan(workload, scenario, tmp_path / "run", sut=sut, rate=rate)
    result = await asyncio.to_thread(measured, wanted, target)
    target.close()
    assert result.reasons == []
    assert result.verdict == "VALID"
    assert result.ticks[-1].counters.requests >= result.times.count > 0
    assert sum(result.times.bins) == result.times.count
    is_network = scenario in ("Server", "Offline")
    assert ("(Network SUT)" in result.system) == (is_network or sut == "native")
    report.write(result, {})
    for name in ("report.md", "report.html", "results.json"):
        text = (tmp_path / "run" / name).read_text()
        assert "QUICK" in text and ("query dispatch library" in text) == is_network
        assert report.SUT_KINDS[sut] in text
    assert (tmp_path / "run/mlperf_log_detail.txt").stat().st_size > 0
    assert not (tmp_path / "run" / PARTIAL).exists()


@pytest.mark.parametrize(
    ("kind", "sut"),
    [
        ("grpc", "python"),
        ("http", "python"),
        pytest.param("grpc", "native", marks=pytest.mark.slow),
    ],
)
async def test_accuracy_is_what_the_classifier_has(
    kind: str, sut: str, workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    addresses = server.addresses
    target: Target = GrpcTarget(workload, addresses["gRPC"])
    if kind == "http":
        target.close()
        target = HttpTarget(workload, addresses["HTTP"], addresses["gRPC"], 4)
    wanted = plan(workload, "Offline", tmp_path / "run", mode="accuracy", target=kind, sut=sut)
    result = await asyncio.to_thread(run, wanted, target, quiet)
    target.close()
    assert (result.verdict, result.reasons) == ("VALID", [])
    share = accuracy(workload, tmp_path / "run/mlperf_log_accuracy.json")
    assert share == np.mean(workload.reference.argmax(1) == workload.truth)


@pytest.mark.parametrize("sut", SUTS)
@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_the_engine_in_process_answers(
    scenario: str, sut: str, workload: Workload, tmp_path: Path
) -> None:
    workload.write_repository(tmp_path / "models")
    target = EngineTarget(workload, tmp_path / "models")
    wanted = plan(workload, scenario, tmp_path / "run", target="engine", sut=sut)
    result = run_long_enough(wanted, target, quiet)
    target.close()
    assert (result.verdict, result.reasons) == ("VALID", [])
    assert result.ticks[-1].counters.requests >= result.times.count > 0


def is_answered_on_a_thread_that_lasts(make: Callable[[], Target]) -> bool:
    """Whether the thread that brings an answer is there when its target is closed."""
    target = make()
    came = threading.Event()
    threads: list[int] = []

    def on_done(_done: list[Completion]) -> None:
        threads.append(threading.get_native_id())
        came.set()

    target.on_done = on_done
    target.submit([(1, 0)])
    came.wait()
    target.close()
    return Path(f"/proc/self/task/{threads[0]}").exists()


async def test_answers_come_on_threads_that_last(
    workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    """LoadGen's logger may follow what it has of a thread after the thread's end."""
    grpc, http = server.addresses["gRPC"], server.addresses["HTTP"]
    targets: list[Callable[[], Target]] = [
        lambda: GrpcTarget(workload, grpc),
        lambda: HttpTarget(workload, http, grpc, 1),
        lambda: EngineTarget(workload, tmp_path / "models"),
    ]
    for make in targets:
        assert await asyncio.to_thread(is_answered_on_a_thread_that_lasts, make)


class _Liar(NullTarget):
    """Answers every sample as if it were the next."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._answers = [*self._answers[1:], self._answers[0]]


class _Mute(NullTarget):
    """Answers with what is no answer."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._answers = [b"\xff"] * workload.size


@pytest.mark.parametrize("sut", SUTS)
@pytest.mark.parametrize(
    ("kind", "why"), [(_Liar, "beyond the tolerance"), (_Mute, "not a ModelInferResponse")]
)
def test_wrong_answers_make_a_run_invalid(
    kind: type[NullTarget], why: str, sut: str, workload: Workload, tmp_path: Path
) -> None:
    result = run(plan(workload, "Server", tmp_path / "run", sut=sut), kind(workload), quiet)
    assert result.verdict == "INVALID"
    assert any("wrong answer" in reason and why in reason for reason in result.reasons)


@pytest.mark.slow
@pytest.mark.parametrize(("bound_ms", "verdict"), [(PATIENT_MS, "VALID"), (1e-6, "INVALID")])
async def test_server_is_searched_for_its_highest_rate(
    bound_ms: float, verdict: str, workload: Workload, server: ServerProcess, tmp_path: Path
) -> None:
    target = GrpcTarget(workload, server.addresses["gRPC"])
    wanted = replace(
        plan(workload, "Server", tmp_path / "run", sut="native", rate=0.0), bound_ms=bound_ms
    )
    result = await asyncio.to_thread(search, wanted, target, 300.0, quiet)
    target.close()
    assert result.verdict == verdict
    if verdict == "INVALID":
        assert result.reasons[0].startswith("no rate meets the bound of 1e-06 ms here: a query")
        return
    assert result.plan.rate > 300.0
    probes = sorted((tmp_path / "run").glob("probe-*"))
    assert 2 <= len(probes) <= 9
    assert all((each / "mlperf_log_summary.txt").exists() for each in probes)


@pytest.mark.slow
def test_samples_that_do_not_fit_into_memory_are_held_back(
    workload: Workload, tmp_path: Path
) -> None:
    workload.write_repository(tmp_path / "models")
    target = EngineTarget(workload, tmp_path / "models")
    wanted = replace(
        plan(workload, "Offline", tmp_path / "run", target="engine", sut="native", rate=20_000.0),
        held_to=20_000.0,
    )
    result = run(wanted, target, quiet)
    target.close()
    assert (result.verdict, result.reasons) == ("VALID", [])
    assert result.samples_per_s < 21_000.0
    assert "HELD BACK to 20,000 samples/s" in report.title(result)


@pytest.mark.slow
def test_the_harness_has_an_overhead(workload: Workload, tmp_path: Path) -> None:
    assert overhead_us(plan(workload, "Server", tmp_path / "run", sut="native")) > 0
    assert (tmp_path / "run/overhead/mlperf_log_summary.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"settings": {"nonsense": 1}}, "no setting nonsense"),
        ({"settings": {"min_query_count": 1.5}}, "min_query_count must be whole"),
        ({"scenario": "Twice"}, "no scenario or mode Twice"),
    ],
)
def test_what_loadgen_does_not_have_is_refused_by_name(
    values: dict[str, Any], why: str, tmp_path: Path
) -> None:
    usual: dict[str, Any] = {"scenario": "Offline", "mode": "PerformanceOnly"}
    usual |= {"settings": {}, "name": "toy", "library": "toy"}
    usual |= {"output": str(tmp_path), "is_network": False}
    with pytest.raises(RuntimeError, match=why):
        load_module().Sut.null(messages=[b""], gives_tensors=False).run(**usual | values)


async def harness(*flags: str, scenario: str = "SingleStream") -> asyncio.subprocess.Process:
    command = ["-m", "bench.mlperf", "--scenario", scenario, *flags]
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
    flags = ["--address", address, "--duration", "60", "--sut", sut, "--output", str(output)]
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


@pytest.mark.slow
async def test_a_run_after_one_that_was_killed_says_so(
    server: ServerProcess, tmp_path: Path
) -> None:
    flags = ["--output", str(tmp_path), "--sut", "python"]
    killed = await harness("--address", server.addresses["gRPC"], "--duration", "60", *flags)
    assert killed.stderr is not None
    while b"answers" not in (line := await killed.stderr.readline()):
        assert line, "the harness ended before it was killed"
    killed.kill()
    await killed.communicate()
    assert (tmp_path / PARTIAL).exists()
    assert not (tmp_path / "report.md").exists()
    after = await harness("--target", "null", "--duration", "0.2", *flags)
    await after.communicate()
    assert after.returncode == 0
    assert not (tmp_path / PARTIAL).exists()
    assert "the run before in this folder did not end" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
async def test_a_target_that_dies_in_the_search_is_said_so(
    server: ServerProcess, tmp_path: Path
) -> None:
    flags = ["--address", server.addresses["gRPC"], "--valid", "--output", str(tmp_path)]
    process = await harness(*flags, scenario="Server")
    assert process.stderr is not None
    while b"probe-01" not in (line := await process.stderr.readline()):
        assert line, "the harness ended before its target"
    os.kill(server.pid, signal.SIGKILL)
    await process.communicate()
    assert process.returncode == 1
    assert "the target has gone" in (tmp_path / "report.md").read_text()
    assert (tmp_path / PARTIAL).exists()
