"""Builds whose process does not end when it is killed, or says more than anybody reads."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from penstock.codec import ModelConfig
from penstock.engines import EngineCache, EngineCacheSettings
from penstock.engines.building import Excerpt
from penstock.errors import CancelledError, FailedPreconditionError

LABEL = "model 'm' version 1"


def make_cache(tmp_path: Path, program: str, limit_s: float) -> EngineCache:
    command = (sys.executable, "-c", f"import signal, sys; {program}")
    return EngineCache(EngineCacheSettings(tmp_path / "cache", limit_s, command, end_s=0.1))


def refusal(cache: EngineCache, model: Path) -> str:
    with pytest.raises(FailedPreconditionError) as raised:
        cache.plan_of(model, LABEL, ModelConfig())
    return str(raised.value).removeprefix(f"{LABEL}: its engine cannot be built: ")


@pytest.fixture
def survivors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Processes that were killed, and that a driver holds."""
    killed: list[int] = []
    monkeypatch.setattr("penstock.engines.building.os.killpg", lambda pid, _: killed.append(pid))
    return killed


def let_go(pid: int) -> None:
    """The driver does: the process ends, and nobody has waited for it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_child_that_outlives_its_kill_fails_the_load_and_is_waited_for_later(
    tmp_path: Path, survivors: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(tmp_path, "signal.alarm(60); signal.pause()", limit_s=0.1)
    first = refusal(cache, tmp_path / "model.onnx")
    (pid,) = survivors
    assert first == (
        f"it took longer than 0 s, and process {pid}, which was to build it and was killed, does "
        "not end: the driver may hold it"
    )
    said = f"{LABEL}: process {pid}, which was to build its engine, was killed and does not end"
    assert said in caplog.messages
    assert refusal(cache, tmp_path / "model.onnx") == (
        f"process {pid}, which was to build it before, was killed and has not ended: the driver "
        "may hold it"
    )
    assert refusal(cache, tmp_path / "other.onnx").startswith("it took longer"), "another place"
    for each in survivors:
        let_go(each)
    assert refusal(cache, tmp_path / "model.onnx").startswith("it took longer"), "tried again"
    let_go(survivors[2])
    cache.close()
    for each in survivors:
        with pytest.raises(ChildProcessError):
            os.waitpid(each, os.WNOHANG)  # it has been waited for


def test_close_fails_a_load_whose_child_outlives_its_kill(
    tmp_path: Path, survivors: list[int]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = f"signal.alarm(60); open({str(fifo)!r}, 'w').close(); signal.pause()"
    cache = make_cache(tmp_path, program, limit_s=3600)
    errors: list[str] = []

    def load() -> None:
        try:
            cache.plan_of(tmp_path / "model.onnx", LABEL, ModelConfig())
        except CancelledError as error:
            errors.append(str(error))

    loading = threading.Thread(target=load)
    loading.start()
    fifo.read_text()  # the child runs
    cache.close()
    loading.join(30)
    assert errors == [f"{LABEL}: the server is stopping"]
    let_go(survivors[0])
    cache.close()


def test_log_has_the_head_and_the_tail_of_what_a_build_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = "print('the cause', 'x' * 5_000_000, 'the end', end=''); sys.exit(4)"
    cache = make_cache(tmp_path, program, limit_s=60)
    assert refusal(cache, tmp_path / "model.onnx") == "the process for it ended with code 4"
    (said,) = (line for line in caplog.messages if "what its build said: " in line)
    assert said.startswith(f"{LABEL}: what its build said: the cause xxx")
    assert said.endswith("xxx the end")
    assert " [4997018 bytes left out] " in said
    assert len(said) < 4000


def test_excerpt_of_little_is_all_of_it() -> None:
    excerpt = Excerpt()
    for _ in range(3):
        excerpt.add(b"0123456789 " * 90)
    assert str(excerpt) == " ".join(["0123456789"] * 270)
