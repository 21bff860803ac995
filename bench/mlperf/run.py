"""One LoadGen run in a thread of its own, watched from the main one, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mlperf.folder import mark_partial
from mlperf.lasting_thread import on_lasting_thread
from mlperf.native_sut import NativeSut
from mlperf.settings import SAMPLES_PER_QUERY, Plan
from mlperf.sut import Sut, SystemUnderTest
from mlperf.targets import Completion, Counters, Target
from mlperf.times import Times

import penstock_client

PATIENCE_S = 60.0
_PERIOD_S = 0.1
_MARGIN = 1.25
_HELD_SHARE = 1.05  # of what is expected; LoadGen makes 1.1 times that
_PROBED_WINDOWS = 3  # of samples under way: the last ones, of small batches, count for little then
_MOST_TICKS = 100  # in a run's least duration: asking for counters must not be part of the load


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
        times: of the right answers.
        system: what LoadGen's logs call what was measured.
        failed: samples without a right answer.
        notes: what else a reader must know.
        overhead_us: of the harness for a sample, measured with the null target; None: was not.
    """

    plan: Plan
    verdict: str = "INVALID"
    reasons: list[str] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)
    times: Times = field(default_factory=Times)
    system: str = ""
    overhead_us: float | None = None
    ticks: list[Tick] = field(default_factory=list)
    accuracy: float | None = None
    failed: int = 0
    notes: list[str] = field(default_factory=list)

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
        return self.times.per_second

    def percentile_ms(self, percent: str) -> float:
        """A latency percentile of LoadGen's, such as "99.00"; NaN where it gave none."""
        text = self.summary.get(f"{percent} percentile latency (ns)")
        return float(text) / 1e6 if text else float("nan")

    @property
    def bound_percentile_ms(self) -> float:
        """Latency at the percentile that Server's bound is for."""
        return self.percentile_ms(f"{100 * self.plan.percentile:.2f}")


def run(plan: Plan, target: Target, progress: Callable[[str], None]) -> Result:
    """Runs it.

    Raises:
        Aborted: the target has gone or is silent; what LoadGen wrote so far is marked PARTIAL.
        KeyboardInterrupt: likewise.
    """
    partial = mark_partial(plan.output)
    plan.workload.prepare(progress)
    sut = make_sut(plan, target)
    result = Result(plan)
    began_ns = time.monotonic_ns()
    finished = threading.Event()
    failed: list[BaseException] = []
    on_lasting_thread(lambda: _loadgen(sut, finished, failed))
    watch = _Watch(sut, target, result, began_ns, progress)
    while not finished.wait(_PERIOD_S):
        watch.look()
    watch.tick()
    if failed:
        sut.close()
        raise failed[0]
    partial.unlink()
    result.times = sut.times()
    _judge(result, sut)
    sut.close()
    return result


def make_sut(plan: Plan, target: Target) -> SystemUnderTest:
    """As the plan says.

    Raises:
        RuntimeError: the native one has not been built, or the target has none.
    """
    return NativeSut(plan, target) if plan.sut == "native" else Sut(plan, target)


def run_long_enough(plan: Plan, target: Target, progress: Callable[[str], None]) -> Result:
    """`run`; again where the target was so quick that LoadGen ran out of queries.

    LoadGen makes them before the run, as many as the plan expects. In Server it is the rate.
    """
    while True:
        result = run(plan, target, progress)
        is_short = result.summary.get("Min duration satisfied") == "NO"
        if plan.scenario == "Server" or not is_short or not result.times.count:
            return result
        if 2 * max(plan.rate, 1 / plan.latency_s) > plan.most_rate():
            result.reasons.append("LoadGen cannot keep the queries of a longer run in memory")
            return result
        plan = replace(plan, rate=2 * plan.rate, latency_s=plan.latency_s / 2)
        progress("over too soon: expecting twice as much")


def _loadgen(sut: SystemUnderTest, finished: threading.Event, failed: list[BaseException]) -> None:
    try:
        sut.run()
    except BaseException as error:  # the main thread raises it
        failed.append(error)
    finally:
        finished.set()


class _Watch:
    """Looks at a run now and then: counters, progress, and whether it still goes on."""

    def __init__(
        self,
        sut: SystemUnderTest,
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
        self._tick_s = max(_PERIOD_S, result.plan.duration_s / _MOST_TICKS)
        self._ticked_s = 0.0
        self.tick()

    def look(self) -> None:
        """Raises Aborted where the run cannot go on."""
        now = self._sut.progress()
        if now.is_lost:
            first = next(iter(self._sut.failures()), "")
            raise Aborted(f"the target has gone in the middle of the run ({first})")
        silent_s = (time.monotonic_ns() - now.last_done_ns) / 1e9
        if now.in_flight and silent_s > PATIENCE_S:
            raise Aborted(f"no answer for {PATIENCE_S:g} s, {now.in_flight} samples wait")
        now_s = (time.monotonic_ns() - self._began_ns) / 1e9
        if now_s - self._ticked_s >= self._tick_s:
            self._ticked_s = now_s
            self.tick()
        if now_s - self._shown_s >= 1.0:
            self._progress(f"{now_s:.0f} s, {now.done:,} answers, {now.in_flight:,} wait")
            self._shown_s = now_s

    def tick(self) -> None:
        """Takes the counters; a server that is too busy to give them is asked again later."""
        try:
            counters = self._target.counters()
        except penstock_client.PenstockError:
            return
        at_s = (time.monotonic_ns() - self._began_ns) / 1e9
        self._result.ticks.append(Tick(at_s, counters))


def _judge(result: Result, sut: SystemUnderTest) -> None:
    text = (result.plan.output / "mlperf_log_summary.txt").read_text()
    result.summary = read_summary(text)
    result.system = result.summary.get("SUT name", "")
    if result.plan.mode == "performance":
        result.verdict = result.summary.get("Result is", "INVALID")
        if result.verdict != "VALID":
            result.reasons += loadgen_reasons(text)
    else:
        result.verdict = "VALID"
    failures = sut.judge()
    result.failed = failures.total()
    for failure, count in failures.most_common(5):
        result.reasons.append(f"{count:,} samples failed: {failure}")
    if failures:
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
    """What was reached before the run: LoadGen wants to know what to expect.

    Attributes:
        samples_per_s: on the whole.
        best_per_s: in the best moment.
        latency_s: of a query, the least or the mean.
    """

    samples_per_s: float
    best_per_s: float
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
    return Calibration(rate, size / latency_s, latency_s)


def probe(plan: Plan, found: Calibration, target: Target, seconds: float = 0.3) -> Calibration:
    """`calibrate` by LoadGen itself, for a native system that a loop in Python cannot fill.

    In the scenario of the plan; where that is Server, in Offline. Its logs are in `calibration`.

    Args:
        plan: of the run to come.
        found: what to expect.
        target: what is asked.
        seconds: at least; longer where so many samples are under way that a run of it would be
            the beginning and the end, and the run to come would be over too soon.
    """
    scenario = "Offline" if plan.scenario == "Server" else plan.scenario
    output = plan.output / "calibration"
    short = replace(plan, scenario=scenario, rate=0.0, is_valid=False, output=output)
    seconds = max(seconds, _PROBED_WINDOWS * short.window / found.samples_per_s)
    short = replace(expecting(replace(short, duration_s=seconds), found), held_to=0.0)
    result = run_long_enough(short, target, lambda _: None)
    rate = max(1.0, result.samples_per_s)
    return Calibration(rate, rate, max(1e-7, result.times.mean_us / 1e6))


def expecting(plan: Plan, found: Calibration) -> Plan:
    """The plan with what LoadGen is to expect: rather too much, or it runs out of queries.

    Where so many do not fit into memory Offline's samples are held back, so that those that do last
    as long as they must.
    """
    most = plan.most_rate()
    if plan.scenario != "Offline":
        return replace(plan, latency_s=max(found.latency_s / _MARGIN, 1 / most))
    rate = plan.rate or _MARGIN * found.best_per_s
    is_held = rate > most and plan.sut == "native" and plan.target != "null"
    return replace(plan, rate=min(rate, most), held_to=_HELD_SHARE * most if is_held else 0.0)
