"""The system under test, as LoadGen sees it: passes samples on, judges answers, keeps times."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlperf_loadgen
import numpy as np
from mlperf.settings import Plan
from mlperf.targets import Completion, Target
from mlperf.times import Times, from_arrays
from mlperf.workloads import Workload


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a run.

    Attributes:
        done, in_flight: samples with and without an answer.
        last_done_ns: when something came last, monotonic.
        is_lost: the target has gone.
    """

    done: int
    in_flight: int
    last_done_ns: int
    is_lost: bool


class SystemUnderTest(Protocol):
    """What LoadGen drives; in Python or native.

    Lifecycle: run, once; progress and failures meanwhile, on other threads; times and judge after
    it; close.
    """

    kind: str

    def run(self) -> None:
        """Blocking: until LoadGen has done."""

    def progress(self) -> Progress:
        """Now."""

    def failures(self) -> Counter[str]:
        """How many samples failed, by text, so far."""

    def judge(self) -> Counter[str]:
        """The same after the run, every wrong answer among them."""

    def times(self) -> Times:
        """Of the right answers."""

    def close(self) -> None:
        """Ends what it started."""


class Judge:
    """Whether an answer is right. Bytes that were right once for a sample are so again.

    Threading: confined to the thread that completes.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        self._workload = workload
        self._target = target
        self._right: list[set[bytes]] = [set() for _ in range(workload.size)]

    def failure(self, sample: int, payload: bytes) -> str:
        """What is wrong with an answer; "" if it is right."""
        if payload in self._right[sample]:
            return ""
        try:
            answer = self._target.answer(payload)
        except (ValueError, KeyError, IndexError) as error:
            return f"wrong answer: {error}"
        if not self._workload.is_right(sample, answer):
            return f"wrong answer to sample {sample}: beyond the tolerance of the reference"
        if len(self._right[sample]) < 16:
            self._right[sample].add(payload)
        return ""


class Sut:
    """In Python, between LoadGen's wheel and a target: judges each answer as it comes.

    Threading: issue on LoadGen's threads, on_done on the target's, the rest from any.
    """

    kind = "Python"

    def __init__(self, plan: Plan, target: Target) -> None:
        self._plan = plan
        self._target = target
        self._judge = Judge(plan.workload, target)
        self._window = plan.window  # samples under way; 0 = any number
        self._keeps_answers = plan.mode == "accuracy"
        self._mutex = threading.Lock()
        self._open: dict[int, tuple[int, int]] = {}  # sample and time, by LoadGen's id
        self._waiting: deque[tuple[int, int]] = deque()
        self._failures: Counter[str] = Counter()
        self._is_lost = threading.Event()
        self._done_ns = array("q")
        self._latency_ns = array("q")
        self._began_ns = self._last_done_ns = time.monotonic_ns()
        target.on_done = self.on_done

    def run(self) -> None:
        """Blocking: until LoadGen has done."""
        size = self._plan.workload.size
        library = mlperf_loadgen.ConstructQSL(size, size, lambda _: None, lambda _: None)
        settings = (self._plan.loadgen(), self._plan.log_settings())
        if self._plan.is_network:
            system = mlperf_loadgen.ConstructQDL(self._issue_queries, self.flush, self._target.name)
            destroy = mlperf_loadgen.DestroyQDL
        else:
            system = mlperf_loadgen.ConstructFastSUT(self.issue, self.flush)
            destroy = mlperf_loadgen.DestroyFastSUT
        mlperf_loadgen.StartTestWithLogSettings(system, library, *settings)
        destroy(system)
        mlperf_loadgen.DestroyQSL(library)

    def progress(self) -> Progress:
        """Now."""
        in_flight = len(self._open) + len(self._waiting)
        return Progress(len(self._done_ns), in_flight, self._last_done_ns, self._is_lost.is_set())

    def failures(self) -> Counter[str]:
        """By text."""
        return self._failures

    def judge(self) -> Counter[str]:
        """They were judged as they came."""
        return self._failures

    def times(self) -> Times:
        """After the run."""
        return from_arrays(self._began_ns, self._done_ns, self._latency_ns)

    def close(self) -> None:
        """Nothing was started."""

    def _issue_queries(self, queries: Sequence[Any]) -> None:
        """As a query dispatch library is asked."""
        self.issue([each.id for each in queries], [each.index for each in queries])

    def issue(self, ids: Sequence[int], samples: Sequence[int]) -> None:
        """LoadGen wants these."""
        with self._mutex:
            self._waiting.extend(zip(ids, samples, strict=True))
            sent = self._next()
        self._send(sent)

    def flush(self) -> None:
        """LoadGen issues no more: nothing is held back here."""

    def _next(self) -> list[tuple[int, int]]:
        """What may go now. REQUIRES: the mutex."""
        room = len(self._waiting)
        if self._window:
            room = min(room, self._window - len(self._open))
        sent = [self._waiting.popleft() for _ in range(room)]
        now = time.monotonic_ns()
        for tag, sample in sent:
            self._open[tag] = (sample, now)
        return sent

    def _send(self, entries: list[tuple[int, int]]) -> None:
        if entries and not self._is_lost.is_set():
            self._target.submit(entries)

    def on_done(self, completions: list[Completion]) -> None:
        """The target has these.

        Once it has gone LoadGen hears nothing more: it would ask on and on, faster than before.
        """
        now = time.monotonic_ns()
        self._last_done_ns = now
        responses, kept = [], []
        for each in completions:
            with self._mutex:
                sample, began = self._open.pop(each.tag)
            failure = each.failure or self._judge.failure(sample, each.payload)
            if failure:
                self._failures[failure] += 1
                if each.is_lost:
                    self._is_lost.set()
            else:
                self._done_ns.append(now)
                self._latency_ns.append(now - began)
            if self._keeps_answers and not failure:
                answer = np.ascontiguousarray(self._target.answer(each.payload))
                kept.append(answer)  # until LoadGen has copied it
                response = (each.tag, answer.ctypes.data, answer.nbytes)
                responses.append(mlperf_loadgen.QuerySampleResponse(*response))
            else:
                responses.append(mlperf_loadgen.QuerySampleResponse(each.tag, 0, 0))
        if self._is_lost.is_set():
            return
        mlperf_loadgen.QuerySamplesComplete(responses)
        with self._mutex:
            sent = self._next() if self._waiting else []
        self._send(sent)
