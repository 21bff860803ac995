"""A run of bench.gpu that is ended by SIGTERM; and what the GPU's driver tells that cannot be."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu import row_parts, running
from gpu.rows import Server, WrongError

ROOT = Path(__file__).parents[3]
PROGRAM = """
import runpy, sys
sys.path[:0] = ["bench", "."]
from gpu import cli
from gpu.step import Step
from gpu.table import Row
from tests.support.gpu_samples import H200

def work(context):
    yield Row("t", "w", "us", 2.0, 1.0, 3.0)
    context.run(["sh", "-c", "echo $$ >" + sys.argv[2] + "; exec sleep 600"], 600.0)

real = cli.main
cli.main = lambda: real(
    ["--output", sys.argv[1]], look=lambda: H200, steps=[Step("copies", "does", work)]
)
runpy.run_module("gpu", run_name="__main__")
"""


def test_sigterm_keeps_what_the_step_has_found_and_leaves_no_program(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    os.mkfifo(told)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(told)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        pid = int(told.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    (step,) = json.loads((tmp_path / "results.json").read_text())["steps"]
    assert (step["step"], step["state"]) == ("copies", "interrupted")
    assert [row["what"] for row in step["rows"]] == ["w"]


def test_interruption_while_a_program_is_started_leaves_none(tmp_path: Path) -> None:
    """The signal comes in the middle of subprocess.Popen, when there is a process already."""
    real, pids = subprocess.Popen, []

    class Interrupted(real):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            pids.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("subprocess.Popen", Interrupted)
        running.run(["sleep", "600"], 600.0)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_program_is_started_with_the_signals_that_it_had() -> None:
    script = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert running.run([sys.executable, "-c", script], 60.0).output == f"{before}\n"
    with pytest.raises(running.StepError):
        running.run(["penstock-none"], 1.0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("used", [0, 81])
def test_memory_that_cannot_be_in_use_fails_the_step(
    used: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        'penstock_gpu_memory_bytes{gpu_uuid="GPU-0"}': 80.0,
        'penstock_gpu_memory_used_bytes{gpu_uuid="GPU-0"}': used,
    }
    monkeypatch.setattr(row_parts, "_samples", lambda *_: told)
    with pytest.raises(WrongError, match=f"GPU-0.* is {used}"):
        list(row_parts._told_by_driver(Server(), "driver"))


def test_why_no_gpu_is_told_is_the_servers_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_parts, "_samples", lambda *_: {})
    reason = "GPUs are not in the metrics: the package nvidia-ml-py is not installed"
    server = Server(log=["ready\n", f"INFO penstock.gpu: {reason}\n"])
    assert list(row_parts._told_by_driver(server, "driver")) == [f"INFO penstock.gpu: {reason}"]
