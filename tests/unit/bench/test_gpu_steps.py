"""bench/gpu: what the steps run, and what they make of what it prints."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from gpu import steps
from gpu.running import TIMED_OUT_STATUS, LeftOut, Ran, StepError, run
from gpu.step import LEFT_OUT_STATUS, Context
from gpu.table import Row
from tests.support.gpu_samples import GTEST, H200

ROW = '{"table": "t", "what": "w", "unit": "us", "median": 2, "least": 1, "greatest": 3}'


def mlperf(**facts: str) -> str:
    figures = {"result": "VALID", "answers per second": "1,234.5", **facts}
    return json.dumps({"tables": {"Result": list(figures.items())}})


def context_of(tmp_path: Path, *answers: Ran) -> tuple[Context, list[list[str]]]:
    """A context whose programs answer in turn, and what was run."""
    left, asked = list(answers), []

    def runner(command: Sequence[str], limit_s: float) -> Ran:
        asked.append(list(command))
        return left.pop(0)

    return Context(H200, runner, tmp_path, models=["bert"]), asked


def test_tests_that_fail_on_the_device_fail_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_program", lambda *parts: parts[-1])
    context, asked = context_of(tmp_path, Ran(0, "[  PASSED  ] 29 tests.\n"), Ran(1, GTEST))
    found = steps.device(context)
    assert next(found) == Row.single("tests", "cuda_test: passed", "tests", 29)
    assert asked == [["cuda_test"]], "what needs a device has the first of the time"
    with pytest.raises(StepError, match=r"gpu_test: failed: CudaTest.Cast_IsNearest, CudaTest"):
        list(found)


def test_tests_that_find_no_gpu_fail_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_program", lambda *parts: parts[-1])
    skipped = "cuda_test.cc:49: Skipped\nUNAVAILABLE: there is no CUDA driver\n\n"
    skipped += "[  PASSED  ] 1 test.\n[  SKIPPED ] 20 tests, listed below:\n"
    context, _ = context_of(tmp_path, Ran(0, skipped))
    reason = "cuda_test: most was skipped: UNAVAILABLE: there is no CUDA driver$"
    with pytest.raises(StepError, match=reason):
        list(steps.device(context))


def test_tests_that_hang_name_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_program", lambda *parts: parts[-1])
    told = "[ RUN      ] A.B\ncuda_test was not through after 16 s: [ RUN      ] A.B\n"
    context, _ = context_of(tmp_path, Ran(TIMED_OUT_STATUS, told))
    with pytest.raises(StepError, match=r"\(status 124\): .* after 16 s: \[ RUN      \] A.B$"):
        list(steps.device(context))


CLEAN = Ran(0, "========= ERROR SUMMARY: 0 errors\n")


def under_sanitizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *answers: Ran
) -> tuple[Context, list[list[str]]]:
    monkeypatch.setattr(steps, "_program", lambda *parts: parts[-1])
    monkeypatch.setattr("shutil.which", lambda name: sys.executable)
    return context_of(tmp_path, *answers)


def test_sanitizer_does_not_count_calls_that_are_meant_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, asked = under_sanitizer(tmp_path, monkeypatch, CLEAN, CLEAN)
    rows = [row for row in steps.sanitizer(context) if isinstance(row, Row)]
    assert [(row.what, row.median) for row in rows] == [("memcheck", 0), ("initcheck", 0)]
    assert asked[0][1:3] == ["--tool=memcheck", "--report-api-errors=no"]
    assert asked[1][1:3] == ["--tool=initcheck", "cuda_test"]


def test_both_checks_are_told_where_one_finds_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Ran(0, "========= ERROR SUMMARY: 2 errors\n")
    context, _ = under_sanitizer(tmp_path, monkeypatch, found, CLEAN)
    told = steps.sanitizer(context)
    assert [next(told), next(told)] == [
        Row.single("compute-sanitizer", "memcheck", "findings", 2),
        Row.single("compute-sanitizer", "initcheck", "findings", 0),
    ]
    with pytest.raises(StepError, match="^memcheck: 2 findings, status 0$"):
        next(told)


def test_sanitizer_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Ran(1, "========= Error: no such tool\n")
    context, _ = under_sanitizer(tmp_path, monkeypatch, failed)
    with pytest.raises(StepError, match="ended before its summary: =+ Error: no such tool"):
        list(steps.sanitizer(context))


def test_sanitizer_that_refuses_the_machine_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Ran(1, f"========= Error: Device not supported\n{CLEAN.output}")
    context, _ = under_sanitizer(tmp_path, monkeypatch, refused)
    with pytest.raises(LeftOut, match="compute-sanitizer says of this machine: Device not supp"):
        list(steps.sanitizer(context))


def test_program_that_is_not_built_names_the_step(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path)
    with pytest.raises(LeftOut, match="nobody is not built: run the step `build`"):
        steps._program("nobody")
    assert context.models == ["bert"]


def test_package_that_is_missing_leaves_the_step_out(tmp_path: Path) -> None:
    told = "ONNX Runtime has no CUDA provider here: install onnxruntime-gpu"
    for step in (steps.ceiling, steps._serve("Offline", "engine")):
        context, _ = context_of(tmp_path, Ran(LEFT_OUT_STATUS, f"{told}\n"))
        with pytest.raises(LeftOut, match="install onnxruntime-gpu"):
            list(step(context))


def test_served_run_is_read_from_its_results(tmp_path: Path) -> None:
    folder = tmp_path / "bert-offline-grpc"
    folder.mkdir()
    asked = []

    def served(command: Sequence[str], limit_s: float) -> Ran:
        asked.append(list(command))
        (folder / "results.json").write_text(mlperf())
        return Ran(0, "")

    context = Context(H200, served, tmp_path, models=["bert"])
    found = list(steps._serve("Offline", "grpc")(context))
    assert found == [Row.single("served over gRPC, Offline", "bert", "samples/s", 1234.5)]
    assert asked[0][1:4] == ["-m", "bench.gpu.served", "--model"]


def test_results_of_an_earlier_run_are_not_those_of_one_that_left_none(tmp_path: Path) -> None:
    folder = tmp_path / "bert-offline-grpc"
    folder.mkdir()
    (folder / "results.json").write_text(mlperf())
    context, _ = context_of(tmp_path, Ran(0, ""))
    with pytest.raises(StepError, match="bert: bench.mlperf left no results"):
        list(steps._serve("Offline", "grpc")(context))


def test_program_that_hangs_is_ended_and_told() -> None:
    script = f"print({ROW!r})\nprint('at work')\nprint('{{half', end='', flush=True)\n"
    ran = run([sys.executable, "-c", f"{script}import signal\nsignal.pause()"], 2.0)
    name = Path(sys.executable).name
    told = f"{name} was not through after 2 s: at work"
    assert ran == Ran(TIMED_OUT_STATUS, f"{ROW}\nat work\n{told}\n")


def test_figures_of_a_program_that_fails_or_is_ended_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_program", lambda *parts: parts[-1])
    for step in (steps.ceiling, steps._measure("lanes"), steps._own("client_memory")):
        context, _ = context_of(tmp_path, Ran(TIMED_OUT_STATUS, f"{ROW}\nwas not through\n"))
        found = step(context)
        assert next(found) == Row("t", "w", "us", 2, 1, 3)
        with pytest.raises(StepError, match="with status 124: was not through"):
            next(found)


def test_program_that_is_not_there_is_told() -> None:
    with pytest.raises(StepError, match="penstock-none cannot be run: No such file"):
        run(["penstock-none"], 1.0)
