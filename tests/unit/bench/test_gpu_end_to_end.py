"""bench/gpu's end to end: the steps, and what is held against what was promised."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu import end_to_end, row_parts, rows, running, steps
from gpu.hardware import Gpu
from gpu.rows import Answer, Load, WrongError
from gpu.running import IMPORTS, LeftOut, Ran, StepError
from gpu.step import Context
from gpu.table import Row

from penstock_client import ResourceExhaustedError, UnavailableError

ROW = '{"table": "t", "what": "w", "unit": "us", "median": 2, "least": 1, "greatest": 3}'


def step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ran: Ran
) -> tuple[Context, list[list[str]]]:
    plugin = tmp_path / "testing" / "gpu" / "libpenstock_fixture.so"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    monkeypatch.setattr(steps, "BUILD", tmp_path)
    asked: list[list[str]] = []

    def runner(command: Sequence[str], limit_s: float) -> Ran:
        asked.append(list(command))
        return ran

    return Context(Gpu("H200", "9.0", 132, 1, "13.0"), runner, tmp_path), asked


def test_step_has_the_programs_figures_and_notes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, asked = step(monkeypatch, tmp_path, Ran(0, f"{ROW}\nnoise\n- a note\n"))
    assert list(steps._end_to_end("fault")(context)) == [Row("t", "w", "us", 2, 1, 3), "a note"]
    assert asked[0][1:] == ["-m", "bench.gpu.end_to_end", "fault"]


def test_step_that_fails_keeps_what_it_found_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, _ = step(monkeypatch, tmp_path, Ran(1, f"{ROW}\na request was answered 3.0 s after\n"))
    found = []
    with pytest.raises(StepError, match="fault ended with status 1: a request was answered 3.0 s"):
        for each in steps._end_to_end("fault")(context):
            found.append(each)
    assert found == [Row("t", "w", "us", 2, 1, 3)]


def test_step_without_its_plugin_or_packages_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, _ = step(monkeypatch, tmp_path, Ran(4, "grpc is not installed\n"))
    with pytest.raises(LeftOut, match="grpc is not installed"):
        list(steps._end_to_end("serve")(context))
    (tmp_path / "testing" / "gpu" / "libpenstock_fixture.so").unlink()
    with pytest.raises(LeftOut, match="libpenstock_fixture.so is not built"):
        list(steps._end_to_end("serve")(context))


def test_answers_that_are_not_right_are_told() -> None:
    right = Answer(0, 1, "right")
    row_parts.expect_right([right])
    with pytest.raises(WrongError, match="1 of 2 answers are not right: wrong"):
        row_parts.expect_right([right, Answer(1, 2, "wrong")])


def test_load_that_gets_no_right_answer_says_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PATIENCE_S", 0.05)
    with Load([Wrong]) as load, pytest.raises(WrongError, match="no 1 right answers came.*'wrong'"):
        load.await_right(1)


class Wrong(rows.Asker):
    """A client whose answers are all wrong."""

    def __init__(self) -> None:
        self._client: Any = SimpleNamespace(close=lambda: None)

    def ask(self) -> bool:
        return False


class Broken(Wrong):
    """A client that fails in a way that is no answer."""

    def ask(self) -> bool:
        raise TypeError("CuPy takes no such thing")


def test_client_that_breaks_ends_the_load_where_it_is_waited_for() -> None:
    with pytest.raises(TypeError, match="takes no such"), Load([Wrong, Broken]) as load:
        load.await_right(1)
    assert all(each.outcome == "wrong" for each in load.answers)


def test_client_that_breaks_ends_the_load_where_nobody_waits() -> None:
    with pytest.raises(TypeError, match="takes no such"), Load([Wrong, Broken]) as load:
        load.go_on(3600.0)


def test_another_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(WrongError, match="mine"), Load([Broken]) as load:
        load.go_on(3600.0)
        raise WrongError("mine")


def test_watch_that_breaks_ends_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(url: str, **_: Any) -> None:
        raise TypeError(f"no client of {url}")

    monkeypatch.setattr(row_parts, "Client", broken)
    with pytest.raises(TypeError, match="no client of here"), row_parts.Readiness("here") as watch:
        watch.await_change(True, 0)


def test_part_that_is_run_by_itself_has_all_that_was_brought(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths: list[list[str]] = []
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["end_to_end", "memory"])

    def part(_: object) -> Iterator[Row | str]:
        paths.append(list(sys.path))
        return iter(())

    monkeypatch.setattr(row_parts, "memory", part)
    assert end_to_end.main() == 0
    assert paths[0][: len(IMPORTS)] == list(IMPORTS)

    class Serving:
        def __init__(self, _: object, env: dict[str, str], **__: object) -> None:
            paths.append(env["PYTHONPATH"].split(os.pathsep))
            raise FileNotFoundError

    monkeypatch.setattr("subprocess.Popen", Serving)
    with pytest.raises(FileNotFoundError), rows.serving(tmp_path, tmp_path):
        pass
    assert paths[1][: len(IMPORTS)] == list(IMPORTS)
    assert {str(running.SITE), str(running.ROOT / "clients" / "gateway")} <= set(IMPORTS)


class Loader:
    """A client whose loads end so."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def load_model(self, _: str) -> None:
        if self._error is not None:
            raise self._error


def refusal(error: Exception | None) -> str:
    client: Any = Loader(error)
    return row_parts._refused(client, "greedy")


def test_refusal_of_memory_says_how_much_was_asked_for() -> None:
    told = "cannot allocate 1099511627776 bytes"
    assert told in refusal(ResourceExhaustedError(told))
    with pytest.raises(WrongError, match="does not say how much"):
        refusal(ResourceExhaustedError("no"))
    with pytest.raises(WrongError, match="is no refusal for want of memory"):
        refusal(UnavailableError(told))
    with pytest.raises(WrongError, match="was loaded that asks for a terabyte"):
        refusal(None)


def trapped(seconds: float, kind: type[Exception] = UnavailableError) -> list[Answer]:
    lost: Any = kind
    return [Answer(0.0, 1.0, "right"), Answer(0.9, 1.0 + seconds, "lost", lost)]


def test_answers_of_a_lost_device_come_soon_and_are_right_or_unavailable() -> None:
    trap = Answer(1.0, 1.2, "lost", UnavailableError)
    found = list(row_parts.told_of_loss("runtime", trap, trapped(0.5), 1.25, 2.0, 1.0))
    assert [each.median for each in found if isinstance(each, Row)] == [2, 500, 250, 1]
    with pytest.raises(WrongError, match="answered 1.5 s after the trap"):
        list(row_parts.told_of_loss("runtime", trap, trapped(1.5), 1.3, 2.0, 1.0))
    with pytest.raises(WrongError, match="right or UNAVAILABLE: lost"):
        list(row_parts.told_of_loss("runtime", trap, trapped(0.5, ValueError), 1.3, 2.0, 1.0))
    with pytest.raises(WrongError, match="the request that trapped was answered: right"):
        list(row_parts.told_of_loss("runtime", Answer(1.0, 1.2, "right"), [], 1.3, 2.0, 1.0))
