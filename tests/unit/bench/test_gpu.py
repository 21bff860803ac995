"""bench/gpu: which steps run, what they make of what programs print, and the table."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from gpu import cli, steps, table
from gpu.hardware import Gpu, NoGpuError, find_gpu
from gpu.parsing import parse_gtest, parse_mlperf, parse_sanitizer
from gpu.running import LeftOut, StepError
from gpu.step import Context, Step
from gpu.table import Outcome, Row, markdown, parse_rows
from mlperf.report import SUT_KINDS
from tests.support.gpu_samples import GTEST, H200

ROOT = Path(__file__).parents[3]
ROW = Row("t", "w", "us", 2.0, 1.0, 3.0)


class FakeCuda:
    """libcuda with one GPU; `failing` says which call does not work."""

    def __init__(self, failing: str = "") -> None:
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self._failing:
                return 100
            self._answer(name, arguments)
            return 0

        return call

    def _answer(self, name: str, arguments: Sequence[Any]) -> None:
        if name == "cuDeviceGetName":
            arguments[0].value = b"NVIDIA H200"
        elif name == "cuDeviceTotalMem_v2":
            arguments[0]._obj.value = 139 << 30
        elif name == "cuDriverGetVersion":
            arguments[0]._obj.value = 13000
        elif name == "cuDeviceGetAttribute":
            arguments[0]._obj.value = {16: 132, 75: 9, 76: 0}[arguments[1]]


def test_gpu_describes_itself() -> None:
    assert find_gpu(lambda _: FakeCuda()) == H200
    assert H200.architecture == "90-real"


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ("cuInit", "the CUDA driver does not start, or finds no device (error 100)"),
        ("cuDeviceGet", "there is no CUDA device 0 (error 100)"),
        ("cuDeviceGetAttribute", "the device does not describe itself (error 100)"),
    ],
)
def test_gpu_that_cannot_be_used_is_none(failing: str, reason: str) -> None:
    with pytest.raises(NoGpuError) as caught:
        find_gpu(lambda _: FakeCuda(failing))
    assert str(caught.value) == reason


def no_gpu() -> Gpu:
    raise NoGpuError("there is no CUDA driver on this machine")


def test_without_a_gpu_it_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--output", str(tmp_path / "out")], look=no_gpu) == cli.NO_GPU == 3
    printed = capsys.readouterr()
    expected = "bench.gpu: nothing was measured: there is no CUDA driver on this machine\n"
    assert (printed.out, printed.err) == ("", expected)
    assert not (tmp_path / "out").exists()


def test_command_ends_with_the_documented_status_where_there_is_no_driver() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("this machine has a CUDA driver")
    except OSError:
        pass
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rows_of_gpu_bench_are_read_and_other_lines_are_not() -> None:
    printed = 'a warning\n{"table": "t", "what": "w", "unit": "us", "median": 2, '
    printed += '"least": 1, "greatest": 3}\n'
    assert parse_rows(printed) == (ROW,)
    for broken in ('{"table": "t"}', '{"what'):
        with pytest.raises(ValueError):
            parse_rows(broken)


def test_summary_of_tests_is_read() -> None:
    tests = parse_gtest(GTEST)
    assert (tests.passed, tests.skipped) == (9, 1)
    assert tests.failed == ("CudaTest.Cast_IsNearest", "CudaTest.Gather/1")
    with pytest.raises(ValueError, match="ended before their summary"):
        parse_gtest("[ RUN      ] CudaTest.Cast\nSegmentation fault")


def test_summary_of_compute_sanitizer_is_read() -> None:
    assert parse_sanitizer("========= ERROR SUMMARY: 0 errors\n") == 0
    assert parse_sanitizer("========= ERROR SUMMARY: 1 error\n" * 2) == 2
    with pytest.raises(ValueError, match="ended before its summary"):
        parse_sanitizer("========= COMPUTE-SANITIZER\n")


def mlperf(**facts: str) -> str:
    figures = {"result": "VALID", "answers per second": "1,234.5", **facts}
    return json.dumps({"tables": {"Result": list(figures.items())}})


def test_results_of_loadgen_are_read() -> None:
    found = parse_mlperf(mlperf())
    assert (found.verdict, found.samples_per_s, found.p99_ms) == ("VALID", 1234.5, None)
    assert parse_mlperf(mlperf(**{"latency p99 (LoadGen)": "1,012.250 ms"})).p99_ms == 1012.25
    more = {"system under test (SUT)": "C++, named x, y", "rows of a batch, mean": "63.25"}
    found = parse_mlperf(mlperf(**more))
    assert (found.sut, found.batch_rows) == ("C++", 63.25)
    for broken in ("{}", "[]", '{"tables": {"Result": [["result", "VALID"]]}}', "not JSON"):
        with pytest.raises(ValueError):
            parse_mlperf(broken)


def test_results_that_bench_mlperf_writes_have_what_is_read() -> None:
    """The names of its figures are its own: a change there must show here."""
    source = (ROOT / "bench" / "mlperf" / "report.py").read_text()
    for name in (
        '("result", ',
        '("why not", reason)',
        '("answers per second", ',
        'f"latency p{float(percent):g} (Load',
        '("rows of a batch, mean", ',
        '("system under test (SUT)", f"{SUT_KINDS[plan.sut]}, ',
    ):
        assert name in source
    assert set(steps._SUTS) == set(SUT_KINDS.values())


def test_run_that_is_not_valid_says_so() -> None:
    content = json.loads(mlperf(result="INVALID", **{"latency p99 (LoadGen)": "9.000 ms"}))
    for reason in ("LoadGen: Early stopping satisfied: NO", "2 samples failed: wrong answer"):
        content["tables"]["Result"].append(["why not", reason])
    found = list(steps.served_rows("bert", "Server", "engine", json.dumps(content)))
    assert found == [
        Row.single("served in process, Server", "bert", "samples/s", 1234.5),
        Row.single("served in process, Server", "bert, p99", "ms", 9.0),
        "bert is not VALID: INVALID; LoadGen: Early stopping satisfied: NO; "
        "2 samples failed: wrong answer",
    ]


def test_served_run_says_by_which_system_and_in_which_batches() -> None:
    more = {"system under test (SUT)": "C++, named x", "rows of a batch, mean": "63.25"}
    more["latency p99 (LoadGen)"] = "9,000.0 ms"  # which says nothing in Offline
    assert list(steps.served_rows("bert", "Offline", "engine", mlperf(**more)))[1:] == [
        Row.single("served in process, Offline", "bert, mean batch", "rows", 63.25),
        "the system under test of bert was native (C++)",
    ]
    *_, note = steps.served_rows(
        "bert", "Offline", "engine", mlperf(**{"system under test (SUT)": "Python, named x"})
    )
    assert str(note).startswith("the system under test of bert was Python, whose own limit")


def test_table_has_the_machine_each_figure_and_what_did_not_run() -> None:
    outcomes = [
        Outcome("a", "done", (ROW, Row.single("t", "v", "GB/s", 1234567.0)), (), 61.2),
        Outcome("b", "left out", notes=("compute-sanitizer is not installed",)),
    ]
    text = markdown({"GPU": "NVIDIA H200"}, outcomes)
    for line in (
        "- GPU: NVIDIA H200",
        "## a: done (61 s)",
        "| w | 2 (1..3) | us |",
        "| v | 1.235e+06 | GB/s |",
        "## b: left out (0 s)",
        "- compute-sanitizer is not installed",
    ):
        assert line in text.splitlines()


def test_outcome_is_kept_whole() -> None:
    outcome = Outcome("a", "done", (ROW,), ("note",), 1.5, {"GPU": "x"})
    content = json.loads(json.dumps(asdict(outcome)))
    assert Outcome.of(content) == outcome
    nothing: list[Any] = [
        {},
        [],
        "",
        None,
        {**content, "state": "running"},
        {**content, "rows": [1]},
    ]
    for broken in nothing:
        with pytest.raises(ValueError):
            Outcome.of(broken)


class Script:
    """Steps whose work is counted; the second fails, is left out, or is interrupted."""

    def __init__(self, second: BaseException | None = None) -> None:
        self.second = second
        self.worked: list[str] = []

    def steps(self) -> list[Step]:
        return [Step(name, "does", self.work(name)) for name in ("build", "device", "copies")]

    def work(self, name: str) -> Any:
        def work(context: Context) -> Iterator[Row | str]:
            self.worked.append(name)
            yield ROW
            if name == "device" and self.second is not None:
                raise self.second

        return work

    def main(self, output: Path, *flags: str, gpu: Gpu = H200) -> int:
        arguments = ["--output", str(output), *flags]
        return cli.main(arguments, look=lambda: gpu, steps=self.steps())


def results(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "results.json").read_text())
    return {step["step"]: step["state"] for step in content["steps"]}


def test_what_was_done_is_not_done_again_unless_asked(tmp_path: Path) -> None:
    script = Script()
    assert script.main(tmp_path, "--steps", "build") == 0
    assert script.main(tmp_path) == 0
    assert script.worked == ["build", "device", "copies"]
    assert script.main(tmp_path, "--steps", "copies", "--again") == 0
    assert script.worked[3:] == ["copies"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["results.json", "results.md"]
    assert results(tmp_path) == dict.fromkeys(["build", "device", "copies"], "done")
    assert "| w | 2 (1..3) | us |" in (tmp_path / "results.md").read_text()


def test_interruption_at_the_first_step_keeps_what_later_ones_found(tmp_path: Path) -> None:
    script = Script()
    script.main(tmp_path, "--steps", "device,copies")
    script.main(tmp_path, "--steps", "build")
    assert results(tmp_path) == dict.fromkeys(["build", "device", "copies"], "done")
    script.second = KeyboardInterrupt()
    assert script.main(tmp_path, "--again") == cli.INTERRUPTED
    assert results(tmp_path) == dict.fromkeys(["build", "device", "copies"], "done")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"steps": [{}]}'])
def test_results_that_are_none_are_measured_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    script = Script()
    assert script.main(tmp_path) == cli.OK
    assert script.worked == ["build", "device", "copies"]


def test_other_gpu_begins_anew(tmp_path: Path) -> None:
    script = Script()
    script.main(tmp_path, "--steps", "build")
    other = Gpu("NVIDIA H100", "9.0", 132, 80 << 30, "13.0")
    script.main(tmp_path, "--steps", "build", gpu=other)
    assert script.worked == ["build", "build"]


def test_runs_of_another_length_begin_anew(tmp_path: Path) -> None:
    script = Script()
    for flags in ([], ["--seconds", "3"], ["--seconds", "3"], ["--models", "bert"]):
        script.main(tmp_path, "--steps", "build", *flags)
    assert script.worked == ["build"] * 3


def test_step_that_fails_is_told_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script(StepError("cuda_test: failed: CudaTest.Cast"))
    assert script.main(tmp_path) == cli.FAILED
    assert "device: failed in 0 s: cuda_test: failed: CudaTest.Cast" in capsys.readouterr().out
    assert results(tmp_path) == {"build": "done", "device": "failed", "copies": "done"}
    script.second = None
    assert script.main(tmp_path) == cli.OK
    assert script.worked == ["build", "device", "copies", "device"]


def test_step_that_is_left_out_is_no_failure_and_tried_again(tmp_path: Path) -> None:
    script = Script(LeftOut("compute-sanitizer is not installed"))
    assert script.main(tmp_path) == cli.OK
    assert results(tmp_path)["device"] == "left out"
    script.main(tmp_path)
    assert script.worked.count("device") == 2


def test_files_that_cannot_be_written_fail_the_step_alone(tmp_path: Path) -> None:
    script = Script(FileExistsError(17, "File exists", "gpu-site"))
    assert script.main(tmp_path) == cli.FAILED
    assert results(tmp_path) == {"build": "done", "device": "failed", "copies": "done"}


def test_results_may_lie_outside_the_tree_and_programs_are_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[Path] = []

    def work(context: Context) -> Iterator[Row | str]:
        outputs.append(context.output)
        yield ROW

    monkeypatch.chdir(tmp_path)
    cli.main(["--output", "out/gpu"], look=lambda: H200, steps=[Step("build", "does", work)])
    assert outputs == [tmp_path / "out" / "gpu"]
    assert results(tmp_path / "out" / "gpu") == {"build": "done"}


def test_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    script = Script(KeyboardInterrupt())
    assert script.main(tmp_path) == cli.INTERRUPTED
    assert results(tmp_path) == {"build": "done", "device": "interrupted"}
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["steps"][1]["rows"] == content["steps"][0]["rows"]
    script.second = None
    assert script.main(tmp_path) == cli.OK
    assert script.worked == ["build", "device", "device", "copies"]


@pytest.mark.parametrize(
    "flags", [["--steps", "build,none"], ["--seconds", "0"], ["--budget", "0"]]
)
def test_flags_that_will_not_do_end_with_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(flags, look=lambda: H200)
    assert caught.value.code == 2


def test_note_is_shown_as_soon_as_it_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def work(context: Context) -> Iterator[Row | str]:
        yield "CuPy is not installed"
        shown.append(capsys.readouterr().out)

    cli.main(["--output", str(tmp_path)], look=lambda: H200, steps=[Step("build", "", work)])
    assert shown[0].endswith("build: CuPy is not installed\n")


def test_step_has_its_part_of_the_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script()
    script.main(tmp_path, "--steps", "build,copies", "--budget", "30")
    printed = capsys.readouterr().out
    assert "build: does, 15 s at most" in printed
    script.main(tmp_path, "--budget", "30")  # what is done wants none
    assert "device: does, 30 s at most" in capsys.readouterr().out


def test_every_step_has_a_line_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(["--help"])
    printed = capsys.readouterr().out
    assert all(f"  {step.name}" in printed for step in steps.STEPS)
    assert table.STATES == ("done", "failed", "left out", "interrupted")
