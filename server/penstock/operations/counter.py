"""OperationCounter: the server's side of counting: one child at a time, and only if somebody asks.

The first scrape that shows a version has it counted; a later one shows the result. So neither a
start nor a load waits for it, and a server that nobody scrapes never counts.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.operations.text import shown

__all__ = ["CounterSettings", "GraphSource", "OperationCount", "OperationCounter"]

_MOST_REMEMBERED = 256
_MOST_ANSWER_BYTES = 1 << 20
_MOST_TEXT = 300
_MOST_TRIES = 3  # for a version, where what ended a try may have passed

_log = logging.getLogger("penstock.operations")


@dataclass(frozen=True, slots=True)
class CounterSettings:
    """How counting is bounded.

    Attributes:
        limit_s: of CPU, and a few times that of the clock: it gives way to whatever else runs.
        limit_bytes: of the child's address space, beside three times the model's file.
        command: of the child; nothing is imported from the directory that the server runs in.
    """

    limit_s: int = 60
    limit_bytes: int = 1 << 30
    command: Sequence[str] = (sys.executable, "-P", "-m", "penstock.operations.child")


@dataclass(frozen=True, slots=True)
class GraphSource:
    """A graph to count in.

    Attributes:
        label: for the log: "model 'm' version 1".
        path: of the ONNX file, or of a plan that was made of one.
        inputs: dims of a run of one row, by name; -1 = open.
    """

    label: str
    path: Path
    inputs: Mapping[str, tuple[int, ...]]


@dataclass(eq=False, slots=True)
class OperationCount:
    """Of one version. Threading: written by the counter's thread, read by any."""

    source: GraphSource
    counter: OperationCounter
    operations: int | None = None
    was_asked: bool = False
    tries: int = 0

    def __call__(self) -> int | None:
        """What a row costs; None: it is not known, or not yet: the first call has it counted.

        A later one has it tried again, where what ended the try may have passed.
        """
        if not self.was_asked:
            self.was_asked = True
            self.counter.ask(self)
        return self.operations


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of a try; `is_definite`: another one would end in the same way."""

    operations: int | None
    is_definite: bool = True


@dataclass(slots=True)
class _State:
    waiting: deque[OperationCount] = field(default_factory=deque)
    thread: threading.Thread | None = None
    process: subprocess.Popen[bytes] | None = None
    is_closed: bool = False


class _NoAnswerError(Exception):
    """Nobody knows whether a further try would end in the same way; says why."""


class OperationCounter:
    """Counts what it is asked for, in order.

    Threading: thread-safe. Blocking: `wait`.
    Ownership: owns a thread while there is something to count, and its child.
    """

    def __init__(
        self,
        settings: CounterSettings = CounterSettings(),  # noqa: B008
        of_plan: Callable[[Path], int | None] = lambda _: None,
    ) -> None:
        """`of_plan` tells what was counted when a plan was built; it may read the plan."""
        self._settings = settings
        self._of_plan = of_plan
        self._changed = threading.Condition()
        self._state = _State()
        self._remembered: OrderedDict[str, _Outcome] = OrderedDict()

    def of(self, label: str, path: Path, inputs: Mapping[str, tuple[int, ...]]) -> OperationCount:
        """What is to be counted, once somebody asks it; see `GraphSource`."""
        return OperationCount(GraphSource(label, path, inputs), self)

    def ask(self, count: OperationCount) -> None:
        """Has it counted after those before it; nothing once closed, or without a thread."""
        with self._changed:
            state = self._state
            if state.is_closed:
                return
            state.waiting.append(count)
            if state.thread is None and not self._start_thread():
                state.waiting.clear()
                count.was_asked = False

    def wait(self, timeout_s: float) -> bool:
        """Until nothing is left to count; False: not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state.thread is None, timeout_s)

    def close(self) -> None:
        """Ends what is being counted, and takes nothing more; does not wait."""
        with self._changed:
            self._state.is_closed = True
            self._state.waiting.clear()
            process = self._state.process
            if process is not None and process.poll() is None:
                process.kill()

    def _start_thread(self) -> bool:
        """Whether the system had one to give: whoever asks must not fail for it."""
        thread = threading.Thread(target=self._run, name="ps-operations", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("operations are not counted yet: %s", error)
            return False
        self._state.thread = thread
        return True

    def _run(self) -> None:
        while (count := self._next()) is not None:
            try:
                outcome = self._count(count.source)
                count.operations = outcome.operations
                count.tries += 1
                if not outcome.is_definite and count.tries < _MOST_TRIES:
                    count.was_asked = False
            except Exception:
                _log.exception("%s: its operations are not counted", count.source.label)

    def _next(self) -> OperationCount | None:
        with self._changed:
            if self._state.waiting:
                return self._state.waiting.popleft()
            self._state.thread = None
            self._changed.notify_all()
            return None

    def _count(self, source: GraphSource) -> _Outcome:
        if source.path.suffix != ".onnx":
            return _Outcome(self._of_plan(source.path))
        try:
            found = source.path.stat()
        except OSError:
            return _Outcome(None)  # it has gone meanwhile, and its version with it
        key = json.dumps(
            [str(source.path), found.st_mtime_ns, found.st_size, sorted(source.inputs.items())]
        )
        if key in self._remembered:
            return self._remembered[key]
        outcome = self._ask_child(source, found.st_size)
        if outcome.is_definite:
            self._remembered[key] = outcome
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return outcome

    def _ask_child(self, source: GraphSource, size_bytes: int) -> _Outcome:
        request = {
            "path": str(source.path),
            "inputs": {name: list(dims) for name, dims in source.inputs.items()},
            "limit_s": self._settings.limit_s,
            "limit_bytes": self._settings.limit_bytes + 3 * size_bytes,
        }
        try:
            answer = self._talk(json.dumps(request).encode())
        except _NoAnswerError as error:
            answer, is_definite = {"error": str(error)}, False
        else:
            is_definite = True
        operations = answer.get("operations")
        if isinstance(operations, int):
            _log.info("%s: %.4g operations per inference", source.label, operations)
            return _Outcome(operations)
        why = shown(str(answer.get("error", "the answer is none")), _MOST_TEXT)
        open_inputs = [
            shown(name) for name, dims in source.inputs.items() if min(dims, default=0) < 0
        ]
        left_open = f"; left open: {', '.join(sorted(open_inputs)[:8])}" if open_inputs else ""
        _log.info("%s: its operations are not counted: %s%s", source.label, why, left_open)
        return _Outcome(None, is_definite)

    def _talk(self, request: bytes) -> dict[str, object]:
        """The answer of a child that ended by itself; raises _NoAnswerError, without one."""
        try:
            process = self._start()
        except OSError as error:
            why = f"the process for it does not start: {error.strerror}"
            raise _NoAnswerError(why) from error
        if process is None:
            raise _NoAnswerError("the server stops")
        try:
            answer, _ = process.communicate(request, timeout=10 * self._settings.limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            why = f"it took longer than {10 * self._settings.limit_s} s"
            raise _NoAnswerError(why) from None
        finally:
            with self._changed:
                self._state.process = None
        if process.returncode != 0:
            raise _NoAnswerError(_how_it_ended(process.returncode))
        try:
            found = json.loads(answer[:_MOST_ANSWER_BYTES])
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _start(self) -> subprocess.Popen[bytes] | None:
        # Threads of numerical libraries would take address space, each.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # Not under the lock, which the event loop takes: a fork of a large process takes long.
        process = subprocess.Popen(
            self._settings.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        with self._changed:
            if not self._state.is_closed:
                self._state.process = process
                return process
        process.kill()
        process.communicate()
        return None


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "it takes more time than counting may have"
    try:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    except ValueError:
        how = f"by signal {-code}"
    return f"the process for it ended {how}"
