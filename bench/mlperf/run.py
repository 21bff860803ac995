"""One LoadGen run in a thread of its own, watched from the main one, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import mlperf_loadgen
import numpy as np
from mlperf.settings import SAMPLES_PER_QUERY, Plan
from mlperf.sut import Sut
from mlperf.targets import Completion, Counters, Target

import penstock_client

PATIENCE_S = 60.0
PARTIAL = "PARTIAL"  # a file beside logs that end in the middle
_PERIOD_S = 0.1


class Aborted(Exception):
    """The run cannot go on. LoadGen cannot be stopped: the process must end (os._exit)."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The server's counters at a time, s since the run began."""

    at_s: float
    counters: Counters


@dataclass
class Result:
    """What a run gave.

    Attributes:
        verdict: "VALID" or "INVALID".
        reasons: why it is invalid.
        summary: LoadGen's own, by name.
        latencies_us: of the right answers, from issue to answer, in order of their end.
        ended_s: when, since the run began.
    """

    plan: Plan
    verdict: str = "INVALID"
    reasons: list[str] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)
    latencies_us: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ended_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ticks: list[Tick] = field(default_factory=list)
    accuracy: float | None = None

    @property
    def samples_per_s(self) -> float:
        """LoadGen's figure where it has one; else right answers, from the first to the last."""
        for name in (
            "Samples per second",
            "Completed samples per second",
            "QPS w/ loadgen overhead",
        ):
            if name in self.summary:
                return float(self.summary[name])
        if len(self.ended_s) < 2:
            return 0.0
        return float((len(self.ended_s) - 1) / (self.ended_s[-1] - self.ended_s[0]))

    def percentile_ms(self, percent: str) -> float:
        """A latency percentile of LoadGen's, such as "99.00"; NaN where it gave none."""
        text = self.summary.get(f"{percent} percentile latency (ns)")
        return float(text) / 1e6 if text else float("nan")


def run(plan: Plan, target: Target, progress: Callable[[str], None]) -> Result:
    """Runs it.

    Raises:
        Aborted: the target has gone or is silent; what LoadGen wrote so far is marked PARTIAL.
        KeyboardInterrupt: likewise.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    partial = plan.output / PARTIAL
    partial.write_text("The run has not ended: the logs beside this file are incomplete.\n")
    sut = Sut(plan.workload, target, plan.window, plan.mode == "accuracy")
    result = Result(plan)
    began_ns = time.monotonic_ns()
    finished = threading.Event()
    threading.Thread(target=_loadgen, args=(plan, sut, finished), daemon=True).start()
    watch = _Watch(sut, target, result, began_ns, progress)
    while not finished.wait(_PERIOD_S):
        watch.look()
    watch.tick()
    partial.unlink()
    result.ended_s = (np.array(sut.done_ns) - began_ns) / 1e9
    result.latencies_us = np.array(sut.latency_ns) / 1e3
    _judge(result, sut)
    return result


def run_long_enough(plan: Plan, target: Target, progress: Callable[[str], None]) -> Result:
    """`run`; in Offline again, with more samples, where the target was faster than expected."""
    while True:
        result = run(plan, target, progress)
        is_short = result.summary.get("Min duration satisfied") == "NO"
        if plan.scenario != "Offline" or not is_short or len(result.ended_s) == 0:
            return result
        plan = replace(plan, rate=2 * plan.rate)
        progress(f"over too soon: expecting {plan.rate:,.0f}/s")


def _loadgen(plan: Plan, sut: Sut, finished: threading.Event) -> None:
    size = plan.workload.size
    library = mlperf_loadgen.ConstructQSL(size, size, lambda _: None, lambda _: None)
    system = mlperf_loadgen.ConstructFastSUT(sut.issue, sut.flush)
    mlperf_loadgen.StartTestWithLogSettings(system, library, plan.loadgen(), plan.log_settings())
    mlperf_loadgen.DestroyFastSUT(system)
    mlperf_loadgen.DestroyQSL(library)
    finished.set()


class _Watch:
    """Looks at a run now and then: counters, progress, and whether it still goes on."""

    def __init__(
        self,
        sut: Sut,
        target: Target,
        result: Result,
        began_ns: int,
        progress: Callable[[str], None],
    ) -> None:
        self._sut = sut
        self._target = target
        self._result = result
        self._began_ns = began_ns
        self._progress = progress
        self._shown_s = 0.0
        self.tick()

    def look(self) -> None:
        """Raises Aborted where the run cannot go on."""
        if self._sut.is_lost.is_set():
            first = next(iter(self._sut.failures), "")
            raise Aborted(f"the target has gone in the middle of the run ({first})")
        silent_s = (time.monotonic_ns() - self._sut.last_done_ns) / 1e9
        if self._sut.in_flight and silent_s > PATIENCE_S:
            raise Aborted(f"no answer for {PATIENCE_S:g} s, {self._sut.in_flight} samples wait")
        self.tick()
        now_s = (time.monotonic_ns() - self._began_ns) / 1e9
        if now_s - self._shown_s >= 1.0:
            done = len(self._sut.done_ns)
            self._progress(f"{now_s:.0f} s, {done:,} answers, {self._sut.in_flight:,} wait")
            self._shown_s = now_s

    def tick(self) -> None:
        """Takes the counters; a server that is too busy to give them is asked again later."""
        try:
            counters = self._target.counters()
        except penstock_client.PenstockError:
            return
        at_s = (time.monotonic_ns() - self._began_ns) / 1e9
        self._result.ticks.append(Tick(at_s, counters))


def _judge(result: Result, sut: Sut) -> None:
    text = (result.plan.output / "mlperf_log_summary.txt").read_text()
    result.summary = read_summary(text)
    if result.plan.mode == "performance":
        result.verdict = result.summary.get("Result is", "INVALID")
        if result.verdict != "VALID":
            result.reasons += loadgen_reasons(text)
    else:
        result.verdict = "VALID"
    for failure, count in sut.failures.most_common(5):
        result.reasons.append(f"{count:,} samples failed: {failure}")
    if sut.failures:
        result.verdict = "INVALID"


def read_summary(text: str) -> dict[str, str]:
    """LoadGen's mlperf_log_summary.txt, by name."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def loadgen_reasons(text: str) -> list[str]:
    """What LoadGen says of why a run is invalid."""
    wanted = ("constraints satisfied : NO", "satisfied : NO", "Early stopping satisfied: NO")
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if any(each in line for each in wanted)]
    return [f"LoadGen: {line}" for line in found + [x for x in lines if x.startswith("* ")]]


@dataclass(frozen=True)
class Calibration:
    """What a closed loop reached before the run: LoadGen wants to know what to expect."""

    samples_per_s: float
    latency_s: float


def calibrate(plan: Plan, target: Target, seconds: float = 0.3) -> Calibration:
    """Asks for as many samples at a time as the scenario has, for so long.

    Raises:
        Aborted: an answer is missing or wrong.
    """
    sizes = {"SingleStream": 1, "MultiStream": SAMPLES_PER_QUERY}
    size = sizes.get(plan.scenario, plan.workload.window)
    done = threading.Semaphore(0)
    failures: list[str] = []

    def on_done(completions: list[Completion]) -> None:
        failures.extend(each.failure for each in completions if each.failure)
        for _ in completions:
            done.release()

    target.on_done = on_done
    began = time.perf_counter()
    rounds, latency_s = 0, float("inf")
    while rounds < 2 or time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        target.submit([(tag, tag % plan.workload.size) for tag in range(size)])
        for _ in range(size):
            if not done.acquire(timeout=PATIENCE_S):
                raise Aborted(f"no answer for {PATIENCE_S:g} s, before the run")
        if failures:
            raise Aborted(f"the target fails before the run: {failures[0]}")
        latency_s = min(latency_s, time.perf_counter() - sent)
        rounds += 1
    rate = rounds * size / (time.perf_counter() - began)
    return Calibration(rate, latency_s)


def expecting(plan: Plan, found: Calibration) -> Plan:
    """The plan with what LoadGen is to expect: rather too much, or it runs out of queries."""
    if plan.scenario == "Offline":
        return replace(plan, rate=plan.rate or 1.2 * plan.workload.window / found.latency_s)
    return replace(plan, latency_s=found.latency_s / 2)
