"""Servers with models of rows (end_to_end.py), and clients that know their answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from gpu.running import IMPORTS

from penstock_client import Client, CudaMemory, PenstockError, RetryPolicy, SharedMemory

MAX_ROWS, BIAS = 32, 0.5
ONCE = RetryPolicy(max_attempts=1)
_READY = re.compile(r"is ready: gRPC (\S+), HTTP (\S+), metrics (\S+)")
PATIENCE_S = 120.0


class WrongError(Exception):
    """What was promised is not so; the message says what."""


def write_rows(
    repository: Path, name: str = "rows", *, words: str = "", **parameters: str | int
) -> None:
    """Writes a model on the first GPU.

    Args:
        repository: the directory of models.
        name: of the model.
        words: of its plan, as csrc/testing/fake_plan.h has them.
        parameters: of the configuration.
    """
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.plan").write_text(f"fake-plan rows={MAX_ROWS} {words}")
    pairs = {"plan": 1, **parameters}.items()
    lines = [f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}' for k, v in pairs]
    lines += [
        'backend: "fixture"\ndefault_model_filename: "model.plan"',
        f"max_batch_size: {MAX_ROWS}\ndynamic_batching {{ max_queue_delay_microseconds: 100 }}",
        "instance_group { kind: KIND_GPU gpus: [0] count: 4 }",
    ]
    (repository / name / "config.pbtxt").write_text("\n".join(lines) + "\n")


@dataclass
class Server:
    """A server's log as it grows, and its addresses."""

    log: list[str] = field(default_factory=list)
    grpc: str = ""
    metrics: str = ""
    _started: threading.Event = field(default_factory=threading.Event)

    def read(self, stream: Any) -> None:
        """Takes every line, so that the server never waits for a full pipe."""
        for line in stream:
            self.log.append(line)
            if found := _READY.search(line):
                self.grpc, _, self.metrics = found.groups()
                self._started.set()
        self._started.set()

    def await_ready(self) -> None:
        """Returns when it is."""
        if not self._started.wait(PATIENCE_S) or not self.grpc:
            raise WrongError(f"the server is not ready: {' '.join(self.log[-3:]).strip()}")


@contextmanager
def serving(
    models: Path, plugins: Path, *flags: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`penstock serve` until the block ends, which must be a clean end."""
    command = [sys.executable, "-m", "penstock", "serve", str(models), "--shutdown-grace-secs=0"]
    command += [f"--{side}-port=0" for side in ("grpc", "http", "metrics")]
    command += [f"--backend-directory={plugins}", *flags]
    paths = os.pathsep.join([*IMPORTS, *sys.path])
    variables = {**os.environ, "PYTHONPATH": paths, **(environment or {})}
    server = Server()
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=server.read, args=(process.stderr,))
        reader.start()
        try:
            server.await_ready()
            yield server
        finally:
            process.terminate()
            process.wait()
            reader.join()
    if process.returncode != 0:
        raise WrongError(f"the server ended with {process.returncode}: {server.log[-1].strip()}")


class Asker:
    """A client whose requests have tensors in `memory`, or in the message.

    Ownership: owns its client; borrows the memory, which is registered already.
    """

    def __init__(
        self,
        url: str,
        number: int,
        shape: tuple[int, int],
        memory: SharedMemory | CudaMemory | None = None,
        model: str = "rows",
    ) -> None:
        """`number`: x begins with it."""
        self._client = Client(url, retry=ONCE)
        self._model = model
        rows, width = shape
        x = np.float32(number) + (np.arange(rows * width, dtype=np.float32) % 4096).reshape(shape)
        self._without_row: Any = 2 * x + np.float32(BIAS)
        self._inputs: dict[str, Any] = {"x": x, "b": np.full((rows, 1), BIAS, np.float32)}
        self._outputs: dict[str, Any] = {"y": None, "n": None}
        if memory is not None:
            placed = memory.put(x)
            self._inputs["x"] = placed
            y = memory.room(x.nbytes, _aligned(placed.end))
            self._outputs = {"y": y, "n": memory.room(4 * rows, _aligned(y.end))}
        if isinstance(memory, CudaMemory):  # compared where it lies
            at = _aligned(self._outputs["n"].end)
            memory.put(self._without_row, at)
            self._without_row = memory.array("FP32", shape, at)

    def __enter__(self) -> Self:
        """The asker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes its connection."""
        self._client.close()

    @staticmethod
    def memory_bytes(shape: tuple[int, int]) -> int:
        """What one needs in a memory."""
        return 3 * _aligned(4 * shape[0] * shape[1]) + _aligned(4 * shape[0])

    def ask(self) -> bool:
        """Whether the answer is right; RpcError where there is none."""
        result = self._client.infer(self._model, self._inputs, outputs=self._outputs)
        row = result["n"].astype("f4")[:, None]
        return bool((result["y"] == self._without_row + row).all())


def _aligned(size: int) -> int:
    return -(-size // 256) * 256


@dataclass(frozen=True)
class Answer:
    """A request: when it began and ended, and how: "right", "wrong" or the error's text."""

    began: float
    ended: float
    outcome: str
    kind: type[PenstockError] | None = None


class Workers:
    """Threads that work until the `with` block ends.

    What one of them raises ends the others' work, too, and is raised where the block waits for
    them, at its end at the latest.
    """

    def __init__(self, works: Sequence[Callable[[], None]]) -> None:
        """One thread for each of `works`, which return soon after `_over` is set."""
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        """Starts."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Ends when each of them has."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Whether it comes true in time, as it can whenever `_changed` is notified."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or condition(), PATIENCE_S)
            if self._failure is not None:
                raise self._failure
            return condition()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised by the block
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()
            self._over.set()


class Load(Workers):
    """Requests of many clients, one at a time each, until the `with` block ends.

    Threading: `answers` grow on the clients' threads, and are whole after the block.
    """

    def __init__(self, makers: Sequence[Callable[[], Asker]]) -> None:
        """One client for each of `makers`."""
        super().__init__([partial(self._work, make) for make in makers])
        self.answers: list[Answer] = []
        self._right = 0

    def await_right(self, count: int) -> None:
        """Waits for so many more right answers."""
        wanted = self._right + count
        if not self._await(lambda: self._right >= wanted):
            raise WrongError(f"no {count} right answers came: {self.answers[-1:]}")

    def go_on(self, seconds: float) -> None:
        """Returns after so long."""
        self._over.wait(seconds)

    def _work(self, make: Callable[[], Asker]) -> None:
        with make() as asker:
            while not self._over.is_set():
                self._note(answer_of(asker))

    def _note(self, answer: Answer) -> None:
        with self._changed:
            self.answers.append(answer)
            self._right += answer.outcome == "right"
            self._changed.notify_all()


def answer_of(asker: Asker) -> Answer:
    """One request's."""
    began = time.monotonic()
    try:
        outcome, kind = ("right" if asker.ask() else "wrong"), None
    except PenstockError as error:
        outcome, kind = str(error), type(error)
    return Answer(began, time.monotonic(), outcome, kind)
