"""OperationCounter with children that do as told, and with the real one."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.models import onnx_files

from penstock.operations.counter import CounterSettings, OperationCounter

WAIT_S = 60.0
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
FIFTY = 'import json, sys; json.load(sys.stdin); print(json.dumps({"operations": 50}))'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "model.onnx"
    made.write_bytes(b"graph")
    return made


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="penstock.operations"):
        yield caplog


def counter(script: str, **settings: int) -> OperationCounter:
    """One whose child is a line of Python."""
    return OperationCounter(CounterSettings(command=(sys.executable, "-c", script), **settings))


def answer_of(made: OperationCounter, path: Path, **inputs: tuple[int, ...]) -> int | None:
    """What is known once everything has been counted."""
    count = made.of("model 'm' version 1", path, inputs)
    count()
    assert made.wait(WAIT_S)
    made.close()
    return count()


def test_first_question_has_it_counted_and_later_ones_know(path: Path) -> None:
    assert answer_of(counter(FIFTY), path, x=(1, 8)) == 50


def test_question_without_a_thread_to_be_had_is_asked_again(
    path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counter("print('{\"operations\": 6}')")
    count = made.of("model 'm' version 1", path, {})

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("penstock.operations.counter.threading.Thread.start", refuse)
        assert count() is None
    assert "operations are not counted yet: can't start new thread" in log.text
    assert count() is None
    assert made.wait(60)
    assert count() == 6


def test_nothing_is_started_before_anybody_asks(path: Path) -> None:
    made = counter("raise SystemExit('asked')")
    made.of("m", path, {"x": (1, 8)})
    assert made.wait(0)
    made.close()


def test_file_is_counted_once_for_the_same_shapes(path: Path, tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    made = counter(f"open({str(tally)!r}, 'a').write('x'); {FIFTY}")
    counts = [made.of("m", path, {"x": dims}) for dims in ((1, 8), (1, 8), (1, 9))]
    for count in counts:
        count()
    assert made.wait(WAIT_S)
    assert [count() for count in counts] == [50, 50, 50]
    assert tally.read_text() == "xx"
    path.write_bytes(b"another graph")
    again = made.of("m", path, {"x": (1, 8)})
    again()
    assert made.wait(WAIT_S)
    assert tally.read_text() == "xxx"
    made.close()


def failing_twice(tally: Path, end: str) -> str:
    """A child that ends so at its first two tries."""
    counts = f"import os; f = open({str(tally)!r}, 'a'); f.write('x'); f.close(); "
    return counts + f"os.path.getsize(f.name) < 3 and {end}; {FIFTY}"


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), 9)", "os._exit(1)"])
def test_try_that_was_ended_is_repeated_by_later_scrapes(
    path: Path, tmp_path: Path, end: str
) -> None:
    made = counter(failing_twice(tmp_path / "tally", end))
    count = made.of("m", path, {"x": (1, 8)})
    for _ in range(3):
        assert count() is None
        assert made.wait(WAIT_S)
    assert count() == 50
    made.close()


def test_tries_of_a_version_end_and_another_version_has_its_own(path: Path, tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    made = counter(f"open({str(tally)!r}, 'a').write('x'); raise SystemExit(1)")
    for expected in (3, 6):
        count = made.of("m", path, {"x": (1, 8)})
        for _ in range(5):
            assert count() is None
            assert made.wait(WAIT_S)
        assert tally.stat().st_size == expected
    made.close()


def test_childs_own_refusal_is_remembered(path: Path, tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    refuse = 'print(\'{"error": "no graph"}\')'
    made = counter(f"open({str(tally)!r}, 'a').write('x'); {refuse}")
    for _ in range(2):
        count = made.of("m", path, {"x": (1, 8)})
        for _ in range(2):
            assert count() is None
            assert made.wait(WAIT_S)
    assert tally.read_text() == "x"
    made.close()


@pytest.mark.parametrize(
    ("script", "fragment"),
    [
        ("import os; os.abort()", "the process for it ended by SIGABRT"),
        ("raise SystemExit(3)", "the process for it ended with code 3"),
        ("print('no json')", "the answer is none"),
        ("print('[1]')", "the answer is none"),
        ('print(\'{"operations": "many"}\')', "the answer is none"),
        ("print('{\"error\": \"' + 'e' * 9999 + '\"}')", "eeee"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "more time than counting may"),
    ],
)
def test_child_that_does_not_count_is_told_in_the_log(
    path: Path, log: pytest.LogCaptureFixture, script: str, fragment: str
) -> None:
    assert answer_of(counter(script), path, x=(1, -1)) is None
    (line,) = log.messages
    assert line.startswith("model 'm' version 1: its operations are not counted: ")
    assert fragment in line
    assert line.endswith("; left open: x")
    assert len(line) < 500


def test_names_of_a_graph_are_shortened_and_made_printable(
    path: Path, log: pytest.LogCaptureFixture
) -> None:
    made = counter('print(\'{"error": "one\\\\ntwo"}\')')
    count = made.of("m", path, {"a\n\x1b[2J" + "b" * 9999: (1, -1)})
    count()
    assert made.wait(WAIT_S)
    made.close()
    (line,) = log.messages
    assert line.startswith("m: its operations are not counted: one?two; left open: a??[2Jb")
    assert line.isprintable()
    assert len(line) < 500


def test_program_that_is_not_there_is_told(path: Path, log: pytest.LogCaptureFixture) -> None:
    made = OperationCounter(CounterSettings(command=("/nonexistent",)))
    assert answer_of(made, path) is None
    assert "does not start: No such file or directory" in log.messages[0]


def test_file_that_has_gone_is_not_counted(path: Path, log: pytest.LogCaptureFixture) -> None:
    path.unlink()
    assert answer_of(counter("raise SystemExit(9)"), path) is None
    assert log.messages == []


def test_close_ends_what_is_being_counted_and_takes_nothing_more(tmp_path: Path) -> None:
    fifo, path = tmp_path / "fifo", tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    os.mkfifo(fifo)
    script = f"open({str(fifo)!r}, 'w').close(); import signal; signal.pause()"
    made = counter(script)
    one, other = (made.of("m", path, {"x": (n,)}) for n in (1, 2))
    one(), other()
    fifo.open().close()  # the child has begun
    made.close()
    assert (one(), other()) == (None, None)
    later = made.of("m", path, {"x": (3,)})
    assert later() is None
    assert made.wait(WAIT_S)


def test_close_does_not_wait(tmp_path: Path) -> None:
    """Nor for a plan that is being read: the event loop calls it."""
    begun, end = threading.Event(), threading.Event()

    def of_plan(_: Path) -> int:
        begun.set()
        assert end.wait(WAIT_S)
        return 7

    made = OperationCounter(of_plan=of_plan)
    made.of("m", tmp_path / "model.plan", {})()
    assert begun.wait(WAIT_S)
    made.close()
    assert not made.wait(0), "it is still being read"
    end.set()
    assert made.wait(WAIT_S)


def in_another_thread(does: Callable[[], object]) -> bool:
    """Whether it returned."""
    thread = threading.Thread(target=does, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    return not thread.is_alive()


def test_question_and_close_do_not_wait_for_the_start_of_a_child(
    path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    made = counter("import signal; signal.pause()")
    one, other = (made.of("m", path, {"x": (n,)}) for n in (1, 2))
    returned: list[bool] = []
    children: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def start_slowly(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        returned.extend(in_another_thread(does) for does in (other, made.close))
        children.append(start(*arguments, **options))
        return children[0]

    monkeypatch.setattr("penstock.operations.counter.subprocess.Popen", start_slowly)
    one()
    assert made.wait(3 * WAIT_S)
    assert returned == [True, True]
    assert [child.returncode for child in children] == [-9], "it began after the end, and is ended"
    assert "the server stops" in log.messages[0]


def test_child_counts_a_real_file(tmp_path: Path) -> None:
    onnx_files.write_model(tmp_path, "m", onnx_files.row_sums())
    (path,) = tmp_path.rglob("*.onnx")
    assert answer_of(OperationCounter(), path, INPUT0=(1, 4, 4)) == 0


def test_child_says_what_a_file_is_not(path: Path, log: pytest.LogCaptureFixture) -> None:
    assert answer_of(OperationCounter(), path) is None
    assert log.messages == [
        "model 'm' version 1: its operations are not counted: the file cannot be read as ONNX"
    ]


def model(
    nodes: list[onnx.NodeProto],
    functions: list[onnx.FunctionProto],
    **constants: int,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=OPSETS, ir_version=8, functions=functions)
    content: bytes = made.SerializeToString()
    return content


def test_graph_that_grows_without_end_is_given_up(
    path: Path, log: pytest.LogCaptureFixture
) -> None:
    """Each function calls the one before it twice."""

    def call(of: int, given: str, made: str) -> onnx.NodeProto:
        return helper.make_node(f"F{of}", [given], [made], domain="my.own")

    def function(at: int) -> onnx.FunctionProto:
        nodes = [call(at - 1, "a", "c"), call(at - 1, "c", "b")]
        if at == 0:
            nodes = [helper.make_node("Relu", ["a"], ["b"])]
        return helper.make_function("my.own", f"F{at}", ["a"], ["b"], nodes, OPSETS)

    path.write_bytes(model([call(59, "x", "y")], [function(at) for at in range(60)]))
    assert answer_of(OperationCounter(CounterSettings(limit_s=1)), path, x=(1, 8)) is None
    (line,) = log.messages
    reasons = ("more time than counting may have", "more memory", "it took longer than 10 s")
    assert any(reason in line for reason in reasons)


def test_graph_that_asks_for_all_memory_is_given_up(
    path: Path, log: pytest.LogCaptureFixture
) -> None:
    nodes = [
        helper.make_node("Range", ["begin", "end", "step"], ["r"]),
        helper.make_node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "r"], ["y"]),
    ]
    path.write_bytes(model(nodes, [], begin=0, end=2**40, step=1))
    assert answer_of(OperationCounter(), path, x=(1, 8)) is None
    assert "it takes more memory than counting may have" in log.messages[0]


def test_child_has_bounds(path: Path, log: pytest.LogCaptureFixture) -> None:
    """Too little memory for what it imports."""
    made = OperationCounter(CounterSettings(limit_bytes=64 << 20))
    assert answer_of(made, path) is None
    assert "its operations are not counted: " in log.messages[0]


def test_child_gives_way_and_is_told_nothing_of_the_server(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET", "s")
    told = tmp_path / "told"
    script = f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w'))"
    answer_of(counter(script), path)
    assert not [name for name in json.loads(told.read_text()) if name.startswith("PENSTOCK_")]


def test_plan_is_asked_of_what_built_it(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    asked: list[Path] = []

    def of_plan(path: Path) -> int:
        asked.append(path)
        return 7

    settings = CounterSettings(command=("/nonexistent",))
    assert answer_of(OperationCounter(settings, of_plan), plan) == 7
    assert asked == [plan]


def test_child_imports_nothing_from_where_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    onnx_files.write_model(tmp_path, "m", onnx_files.row_sums())
    (path,) = tmp_path.rglob("*.onnx")
    assert answer_of(OperationCounter(), path, INPUT0=(1, 4, 4)) == 0
