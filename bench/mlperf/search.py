"""The highest Poisson rate that meets the latency bound: LoadGen runs, doubling, then bisection."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlperf.run import Result, run
from mlperf.settings import Plan
from mlperf.targets import Target

_PRECISION = 0.05
_MOST_PROBES = 12
_STEP_BACK = 0.93
_LEAST_RATE = 1.0


@dataclass(frozen=True)
class Bracket:
    """What is known of the rate: good is met, bad is not; 0 and infinity before anything is."""

    good: float = 0.0
    bad: float = float("inf")

    def next(self, start: float) -> float | None:
        """The rate to try next; None once they are close, or where hardly any would do."""
        if self.good == 0.0 and self.bad == float("inf"):
            return start
        if self.bad == float("inf"):
            return 2 * self.good
        if self.good == 0.0:
            return self.bad / 2 if self.bad > 2 * _LEAST_RATE else None
        if self.bad / self.good <= 1 + _PRECISION:
            return None
        return math.sqrt(self.good * self.bad)

    def with_result(self, rate: float, is_met: bool) -> Bracket:
        """After a probe."""
        return replace(self, good=rate) if is_met else replace(self, bad=rate)


def highest_rate(
    plan: Plan, target: Target, start: float, seconds: float, say: Callable[[str], None]
) -> float:
    """Probes of `seconds` each, their logs in folders of their own; 0 where no rate will do."""
    bracket = Bracket()
    for number in range(1, _MOST_PROBES + 1):
        rate = bracket.next(start)
        if rate is None:
            break
        folder = plan.output / f"probe-{number:02}"
        probe = replace(plan, rate=rate, duration_s=seconds, is_valid=False, output=folder)
        result = run(probe, target, lambda _: None)
        is_met = result.verdict == "VALID"
        p99 = result.percentile_ms("99.00")
        say(f"probe {number}: {rate:,.0f}/s, p99 {p99:.2f} ms, {result.verdict}")
        bracket = bracket.with_result(rate, is_met)
    return bracket.good


def search(plan: Plan, target: Target, start: float, say: Callable[[str], None]) -> Result:
    """The run at the highest rate; where the long run is not valid, at a little less."""
    rate = highest_rate(plan, target, start, min(plan.duration_s, 10.0), say)
    if rate == 0.0:
        result = run(replace(plan, rate=_LEAST_RATE), target, say)
        result.reasons.insert(0, "no rate meets the latency bound on this machine")
        result.verdict = "INVALID"
        return result
    most = plan.most_rate()
    if rate > most:
        say(f"{most:,.0f}/s instead of {rate:,.0f}: more queries do not fit into memory")
        rate = most
    for _ in range(4):
        result = run(replace(plan, rate=rate), target, say)
        if result.verdict == "VALID":
            break
        say(f"at {rate:,.0f}/s the whole run is {result.verdict}: a little less")
        rate *= _STEP_BACK
    return result
