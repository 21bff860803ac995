"""The system under test, as LoadGen sees it: passes samples on, judges answers, keeps times."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence

import mlperf_loadgen
import numpy as np
from mlperf.targets import Completion, Target
from mlperf.workloads import Workload


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
    """Between LoadGen and a target.

    Threading: issue on LoadGen's threads, on_done on the target's, the rest from any.

    Attributes:
        failures: by text, how many samples.
        is_lost: set once the target has gone.
        done_ns, latency_ns: of every right answer, monotonic; from the issue to the answer.
        last_done_ns: when something came last.
    """

    def __init__(
        self, workload: Workload, target: Target, window: int, keeps_answers: bool
    ) -> None:
        self._target = target
        self._judge = Judge(workload, target)
        self._window = window  # samples under way; 0 = any number
        self._keeps_answers = keeps_answers
        self._mutex = threading.Lock()
        self._open: dict[int, tuple[int, int]] = {}  # sample and time, by LoadGen's id
        self._waiting: deque[tuple[int, int]] = deque()
        self.failures: Counter[str] = Counter()
        self.is_lost = threading.Event()
        self.done_ns = array("q")
        self.latency_ns = array("q")
        self.last_done_ns = time.monotonic_ns()
        target.on_done = self.on_done

    @property
    def in_flight(self) -> int:
        """Samples without an answer."""
        return len(self._open) + len(self._waiting)

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
        if entries and not self.is_lost.is_set():
            self._target.submit(entries)

    def on_done(self, completions: list[Completion]) -> None:
        """The target has these.

        Once it has gone LoadGen hears nothing more: it would ask on and on, faster than before.
        """
        now = time.monotonic_ns()
        self.last_done_ns = now
        responses, kept = [], []
        for each in completions:
            with self._mutex:
                sample, began = self._open.pop(each.tag)
            failure = each.failure or self._judge.failure(sample, each.payload)
            if failure:
                self.failures[failure] += 1
                if each.is_lost:
                    self.is_lost.set()
            else:
                self.done_ns.append(now)
                self.latency_ns.append(now - began)
            if self._keeps_answers and not failure:
                answer = np.ascontiguousarray(self._target.answer(each.payload))
                kept.append(answer)  # until LoadGen has copied it
                response = (each.tag, answer.ctypes.data, answer.nbytes)
                responses.append(mlperf_loadgen.QuerySampleResponse(*response))
            else:
                responses.append(mlperf_loadgen.QuerySampleResponse(each.tag, 0, 0))
        if self.is_lost.is_set():
            return
        mlperf_loadgen.QuerySamplesComplete(responses)
        with self._mutex:
            sent = self._next() if self._waiting else []
        self._send(sent)
