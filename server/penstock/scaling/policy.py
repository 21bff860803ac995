"""How many replicas a model should have: a pure function of settings, state, signals and time.

Little's law sizes the fleet. `arrival rate x instance-seconds per request` is the number of
instances that are busy on average; divided by the instances of a replica and by the utilisation
that is aimed at (the head-room), it is the number of replicas. To that come the instances that
drain the queue in `drain_s`, and, where requests wait too long and instances are busy, growth by
at most a factor of two over the replicas that are up.

What comes out is stabilised as Kubernetes' HPA does it: up to the least of the recommendations of
the up window, down to the greatest of those of the down window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.scaling.signals import ModelSignals

__all__ = ["Decision", "PolicySettings", "PolicyState", "decide", "recommend"]

_MAX_GROWTH = 2.0
_ROUNDING = 1e-9
"""A demand of 2.0000000001 replicas is one of 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """What is aimed at.

    Attributes:
        min_replicas: never fewer; 0 = none once the model was idle for `idle_s`.
        max_replicas: never more.
        target_utilisation: share of the instances' time, above 0 and up to 1.
        target_queue_age_s: requests that wait longer want more replicas.
        drain_s: time in which what waits should be served.
        up_window_s: a rise must last so long.
        down_window_s: a fall must last so long.
        idle_s: without any request, until the model is inactive.
        activation_rate: requests per second up to which the model counts as idle.
    """

    min_replicas: int = 1
    max_replicas: int = 10
    target_utilisation: float = 0.7
    target_queue_age_s: float = 0.5
    drain_s: float = 10.0
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    idle_s: float = 300.0
    activation_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What the policy remembers of a model.

    Attributes:
        decided: replicas of the last decision; None = there was none.
        active_s: when the model was active last, or was first seen.
        advice: times and recommendations, oldest first, within the greater window.
    """

    decided: int | None = None
    active_s: float | None = None
    advice: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says.

    Attributes:
        replicas: how many there should be.
        recommended: before stabilisation.
        is_active: the model has requests, or had some within `idle_s`.
        reason: in words, for the log.
    """

    replicas: int
    recommended: int
    is_active: bool
    reason: str


def decide(
    settings: PolicySettings, state: PolicyState, signals: ModelSignals, now_s: float
) -> tuple[Decision, PolicyState]:
    """The decision of this moment, and what to remember for the next.

    Args:
        settings: what is aimed at.
        state: what the call before returned; a fresh PolicyState at first.
        signals: of the model, now.
        now_s: monotonic, not before the call before.
    """
    is_busy = signals.in_flight > 0 or signals.arrival_rate > settings.activation_rate
    active_s = now_s if is_busy or state.active_s is None else state.active_s
    # Just begun counts as active: a scaler that starts must not take away what it has not watched.
    is_active = is_busy or now_s - active_s < settings.idle_s
    demand, reason = recommend(settings, signals)
    if settings.min_replicas == 0 and not is_active:
        demand, reason = 0, f"idle for {settings.idle_s:g} s"
    advice = _recent(settings, (*state.advice, (now_s, demand)), now_s)
    before = signals.replicas + signals.missing if state.decided is None else state.decided
    if state.decided is None and before > demand:  # what was asked for earlier is not known
        advice = ((now_s, before), *advice)
    replicas = _stabilised(settings, advice, before, demand, now_s)
    return (
        Decision(replicas, demand, is_active, reason),
        PolicyState(replicas, active_s, advice),
    )


def recommend(settings: PolicySettings, signals: ModelSignals) -> tuple[int, str]:
    """Replicas that the signals ask for, at least 1 and within the bounds, and why."""
    demand, reason = _by_littles_law(settings, signals)
    grown = _by_queue_age(settings, signals)
    if grown > demand:
        demand, reason = grown, f"requests wait {signals.queue_age_s:.3g} s"
    known = signals.replicas + signals.missing
    if signals.missing and demand < known:
        demand, reason = known, f"{signals.missing} of {known} replicas do not answer"
    least = max(1, settings.min_replicas)
    bounded = min(max(demand, least), max(settings.max_replicas, least))
    return bounded, reason


def _by_littles_law(settings: PolicySettings, signals: ModelSignals) -> tuple[int, str]:
    if not signals.replicas or signals.instances < 1 or signals.service_s is None:
        # Nothing is known of what a request costs: those that are there keep what there is.
        is_wanted = signals.in_flight > 0 or signals.arrival_rate > 0
        return (max(1, signals.replicas) if is_wanted else 0), "no request has ended yet"
    arriving = signals.arrival_rate * signals.service_s
    waiting = signals.pending + signals.waiting
    draining = waiting * signals.service_s / settings.drain_s
    per_replica = signals.instances / signals.replicas * settings.target_utilisation
    exact = (arriving + draining) / per_replica
    reason = f"{signals.arrival_rate:.4g} requests/s of {signals.service_s:.3g} s"
    return _ceil(min(exact, settings.max_replicas)), reason


def _by_queue_age(settings: PolicySettings, signals: ModelSignals) -> int:
    """More than there are, where requests wait too long for instances that are busy.

    Idle instances beside a queue mean that something else holds it up, which replicas do not help.
    """
    if not signals.replicas or signals.instances < 1 or not signals.pending:
        return 0
    busy = max(signals.utilisation, min(1.0, signals.running / signals.instances))
    excess = signals.queue_age_s / settings.target_queue_age_s
    if excess <= 1 or busy < settings.target_utilisation / 2:
        return 0
    return _ceil(signals.replicas * min(excess, _MAX_GROWTH))


def _stabilised(
    settings: PolicySettings,
    advice: tuple[tuple[float, int], ...],
    before: int,
    demand: int,
    now_s: float,
) -> int:
    if demand == 0 or before == 0:  # idle time is a window of its own, and nothing serves at 0
        return demand
    up = min(n for at_s, n in advice if now_s - at_s <= settings.up_window_s)
    down = max(n for at_s, n in advice if now_s - at_s <= settings.down_window_s)
    replicas = up if before < up else down if before > down else before
    least = max(1, settings.min_replicas)
    return min(max(replicas, least), max(settings.max_replicas, least))


def _recent(
    settings: PolicySettings, advice: tuple[tuple[float, int], ...], now_s: float
) -> tuple[tuple[float, int], ...]:
    longest = max(settings.up_window_s, settings.down_window_s)
    return tuple(each for each in advice if now_s - each[0] <= longest)


def _ceil(value: float) -> int:
    return math.ceil(value - _ROUNDING)
