"""The highest Poisson rate that meets the latency bound: LoadGen runs, doubling, then bisection.

Probes are short and judged here: their queries need not be as many as LoadGen's own judgement
wants. A rate that they found is confirmed by a longer one before a long run is begun with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlperf.run import Result, calibrate, run
from mlperf.settings import Plan
from mlperf.targets import Target

_PRECISION = 0.05
_MOST_PROBES = 9
_PROBE_S = 5.0
_CONFIRM_S = 30.0
_STEP_BACK = 0.93
_MOST_STEPS = 4
_MOST_WHOLE_RUNS = 2
_LEAST_RATE = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bracket:
    """What is known of the rate: good is met, bad is not; 0 and infinity before anything is.

    Attributes:
        most: no rate above it is tried.
    """

    good: float = 0.0
    bad: float = float("inf")
    most: float = float("inf")

    def next(self, start: float) -> float | None:
        """The rate to try next; None once they are close, or where hardly any would do."""
        if self.good == 0.0 and self.bad == float("inf"):
            return min(start, self.most)
        if self.good >= self.most:
            return None
        if self.bad == float("inf"):
            return min(2 * self.good, self.most)
        if self.good == 0.0:
            return self.bad / 2 if self.bad > 2 * _LEAST_RATE else None
        if self.bad / self.good <= 1 + _PRECISION:
            return None
        return math.sqrt(self.good * self.bad)

    def with_result(self, rate: float, is_met: bool) -> Bracket:
        """After a probe."""
        return replace(self, good=rate) if is_met else replace(self, bad=rate)


def is_met(result: Result) -> bool:
    """Whether a probe met the bound, every answer right."""
    return not result.failed and result.bound_percentile_ms <= result.plan.bound_ms


def highest_rate(plan: Plan, target: Target, start: float, say: Say) -> Bracket:
    """By probes, their logs in folders of their own; its good is 0 where no rate will do."""
    bracket = Bracket(most=plan.most_rate())
    for number in range(1, _MOST_PROBES + 1):
        rate = bracket.next(start)
        if rate is None:
            break
        is_good = _try(plan, target, rate, _PROBE_S, f"probe-{number:02}", say)
        bracket = bracket.with_result(rate, is_good)
    return bracket


def _try(plan: Plan, target: Target, rate: float, seconds: float, name: str, say: Say) -> bool:  # noqa: PLR0913
    probe = replace(
        plan,
        rate=rate,
        duration_s=min(plan.duration_s, seconds),
        is_probe=True,
        output=plan.output / name,
    )
    result = run(probe, target, lambda _: None)
    is_good = is_met(result)
    share = f"p{100 * plan.percentile:g}"
    words = "meets" if is_good else "misses"
    say(f"{name}: {rate:,.0f}/s, {share} {result.bound_percentile_ms:.2f} ms {words} the bound")
    return is_good


def confirmed(plan: Plan, target: Target, rate: float, say: Say) -> float:
    """The rate, or a little less, that a longer probe meets; only where the run is longer still."""
    if plan.duration_s <= _CONFIRM_S:
        return rate
    for number in range(1, _MOST_STEPS + 1):
        if _try(plan, target, rate, _CONFIRM_S, f"confirm-{number:02}", say):
            break
        rate *= _STEP_BACK
    return rate


def search(plan: Plan, target: Target, start: float, say: Say) -> Result:
    """The run at the highest rate; where that is not valid, once more at a little less."""
    alone_ms = calibrate(replace(plan, scenario="SingleStream"), target, 0.1).latency_s * 1e3
    if alone_ms > plan.bound_ms:
        return _without_rate(plan, target, start, say, f"a query alone takes {alone_ms:,.1f} ms")
    bracket = highest_rate(plan, target, start, say)
    if bracket.good == 0.0:
        why = f"{bracket.bad:,.1f}/s does not"
        return _without_rate(plan, target, bracket.bad, say, why)
    rate = confirmed(plan, target, bracket.good, say)
    for _ in range(_MOST_WHOLE_RUNS):
        result = run(replace(plan, rate=rate), target, say)
        if result.verdict == "VALID":
            break
        say(f"at {rate:,.0f}/s the whole run is {result.verdict}")
        rate *= _STEP_BACK
    if bracket.good >= bracket.most:
        result.notes.append(
            "no higher rate was tried: its queries would not fit into LoadGen's memory"
        )
    return result


def _without_rate(plan: Plan, target: Target, rate: float, say: Say, why: str) -> Result:
    """A short run, to show by how much the bound is missed."""
    short = replace(plan, rate=rate, duration_s=min(plan.duration_s, _PROBE_S), is_probe=True)
    result = run(replace(short, is_valid=False), target, say)
    result.reasons.insert(0, f"no rate meets the bound of {plan.bound_ms:g} ms here: {why}")
    result.verdict = "INVALID"
    return result
