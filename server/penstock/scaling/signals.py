"""What is measured of a fleet, and how counters of replicas become rates.

A replica is read as counters (`Counters`, by model and version); `ReplicaHistory` turns readings
into what happened in a window; `combine` adds the replicas up. Everything is a function of what is
passed in, time (monotonic, s) included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

__all__ = ["Counters", "ModelSignals", "ReplicaHistory", "ReplicaSignals", "combine"]

Series = tuple[str, str]
"""Model and version."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a replica says of one version of a model; finite and not negative.

    Attributes:
        success: requests answered so far.
        failure: requests failed so far, those that the queue refused among them.
        rejected: requests that the queue refused so far.
        queue_s: time that answered requests have spent in the queue so far.
        busy_s: time that instances have spent on batches so far.
        background_s: of that, on batches of background requests, which run in what others leave.
        pending: requests in the queue now.
        running: requests in batches that run now.
        instances: of the version.
    """

    success: float = 0.0
    failure: float = 0.0
    rejected: float = 0.0
    queue_s: float = 0.0
    busy_s: float = 0.0
    background_s: float = 0.0
    pending: float = 0.0
    running: float = 0.0
    instances: float = 0.0


_CLOCK_S = 1e-9
"""The core counts nanoseconds."""

_GROWING = ("success", "failure", "rejected", "queue_s", "busy_s", "background_s")


@dataclass(frozen=True, slots=True)
class ReplicaSignals:
    """What one replica did with one model in the window.

    Attributes:
        window_s: how long the window was; 0 = there is one reading only.
        arrived: requests that came.
        completed: requests that were answered.
        rejected: requests that the queue refused.
        queue_s: time in the queue of those that were answered.
        busy_s: time of instances on batches but those of background requests, which are no reason
            for another replica; at most all of them all the time.
        pending: requests in the queue now.
        running: requests in batches that run now.
        instances: of the model.
    """

    window_s: float = 0.0
    arrived: float = 0.0
    completed: float = 0.0
    rejected: float = 0.0
    queue_s: float = 0.0
    busy_s: float = 0.0
    pending: float = 0.0
    running: float = 0.0
    instances: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSignals:
    """One model over the whole fleet: totals, never averages of pods.

    Attributes:
        model: its name.
        replicas: that answered and have the model.
        missing: that should be there and did not answer.
        instances: of all replicas that answered.
        arrival_rate: requests per second, refused ones included.
        service_s: instance-seconds that a request takes, its share of its batch; None = unknown.
        pending: requests in queues now.
        running: requests in batches that run now.
        queue_age_s: how long a request waits: the greater of what those answered did wait and
            what the queue now takes to drain.
        utilisation: share of the instances' time spent on batches, 0 to 1.
        rejected_rate: requests refused per second.
        waiting: requests held by gateways because no replica is up.
    """

    model: str
    replicas: int = 0
    missing: int = 0
    instances: float = 0.0
    arrival_rate: float = 0.0
    service_s: float | None = None
    pending: float = 0.0
    running: float = 0.0
    queue_age_s: float = 0.0
    utilisation: float = 0.0
    rejected_rate: float = 0.0
    waiting: float = 0.0

    @property
    def in_flight(self) -> float:
        """Requests that are somewhere in the fleet, gateways included."""
        return self.pending + self.running + self.waiting


@dataclass(frozen=True, slots=True)
class _Step:
    """What happened between two readings."""

    at_s: float
    seconds: float
    by_series: Mapping[Series, Counters]
    in_flight_grew: Mapping[Series, float]


@dataclass(slots=True)
class _Total:
    """What one model did in the window and has now, added up over its versions."""

    arrived: float = 0.0
    completed: float = 0.0
    rejected: float = 0.0
    queue_s: float = 0.0
    busy_s: float = 0.0
    pending: float = 0.0
    running: float = 0.0
    instances: float = 0.0

    def add_now(self, counters: Counters) -> None:
        self.pending += counters.pending
        self.running += counters.running
        self.instances += counters.instances

    def add_change(self, change: Counters, in_flight_grew: float) -> None:
        self.arrived += max(0.0, change.success + change.failure + in_flight_grew)
        self.completed += change.success
        self.rejected += change.rejected
        self.queue_s += change.queue_s
        self.busy_s += change.busy_s - change.background_s

    def signals(self, seconds: float) -> ReplicaSignals:
        return ReplicaSignals(
            window_s=seconds,
            arrived=self.arrived,
            completed=self.completed,
            rejected=self.rejected,
            queue_s=self.queue_s,
            busy_s=min(max(0.0, self.busy_s), self.instances * seconds),
            pending=self.pending,
            running=self.running,
            instances=self.instances,
        )


@dataclass(slots=True)
class ReplicaHistory:
    """The readings of one replica, as steps between them.

    A counter that falls belongs to a process that started anew: it counts from 0.

    Threading: thread-compatible.
    """

    window_s: float
    at_s: float | None = None
    latest: Mapping[Series, Counters] = field(default_factory=dict)
    _steps: deque[_Step] = field(default_factory=deque)

    def add(self, now_s: float, reading: Mapping[Series, Counters]) -> None:
        """Takes the next reading; one that is not later than the last is left out."""
        if self.at_s is not None:
            if now_s <= self.at_s:
                return
            self._steps.append(_step(self.at_s, self.latest, now_s, reading))
        self.at_s = now_s
        self.latest = reading
        while self._steps and self._steps[0].at_s < now_s - self.window_s:
            self._steps.popleft()

    def signals(self) -> dict[str, ReplicaSignals]:
        """By model, over the window."""
        seconds = sum(step.seconds for step in self._steps)
        totals: dict[str, _Total] = {}
        for (model, _), counters in self.latest.items():
            totals.setdefault(model, _Total()).add_now(counters)
        for step in self._steps:
            for series, counters in step.by_series.items():
                if (total := totals.get(series[0])) is not None:
                    total.add_change(counters, step.in_flight_grew[series])
        return {model: totals[model].signals(seconds) for model in sorted(totals)}


def combine(
    model: str, replicas: Iterable[ReplicaSignals], *, missing: int = 0, waiting: float = 0.0
) -> ModelSignals:
    """Adds replicas up.

    Args:
        model: its name.
        replicas: those that have the model.
        missing: replicas that did not answer.
        waiting: requests that gateways hold.
    """
    known = list(replicas)
    pending = sum(each.pending for each in known)
    completed_rate = _rate(known, "completed")
    completed = sum(each.completed for each in known)
    waited_s = sum(each.queue_s for each in known) / completed if completed >= 1 else 0.0
    drained_s = pending / completed_rate if completed >= 1 else 0.0
    time_of_instances = sum(each.instances * each.window_s for each in known)
    busy_s = sum(each.busy_s for each in known)
    return ModelSignals(
        model=model,
        replicas=len(known),
        missing=missing,
        instances=sum(each.instances for each in known),
        arrival_rate=_rate(known, "arrived"),
        service_s=busy_s / completed if completed >= 1 and busy_s >= _CLOCK_S else None,
        pending=pending,
        running=sum(each.running for each in known),
        queue_age_s=max(waited_s, drained_s),
        utilisation=min(1.0, busy_s / time_of_instances) if time_of_instances else 0.0,
        rejected_rate=_rate(known, "rejected"),
        waiting=waiting,
    )


def _rate(replicas: Iterable[ReplicaSignals], name: str) -> float:
    rates = [getattr(each, name) / each.window_s for each in replicas if each.window_s]
    return float(sum(rates))


def _step(
    before_s: float,
    before: Mapping[Series, Counters],
    now_s: float,
    now: Mapping[Series, Counters],
) -> _Step:
    changes, grew = {}, {}
    for series, counters in now.items():
        # A version that was not there before counts from here: what it did is of another window.
        last = before.get(series, counters)
        has_restarted = counters.success < last.success or counters.busy_s < last.busy_s
        base = Counters() if has_restarted else last
        changes[series] = _difference(base, counters)
        grew[series] = counters.pending + counters.running - base.pending - base.running
    return _Step(now_s, now_s - before_s, changes, grew)


def _difference(base: Counters, counters: Counters) -> Counters:
    values = {
        each.name: max(0.0, getattr(counters, each.name) - getattr(base, each.name))
        for each in fields(Counters)
        if each.name in _GROWING
    }
    return Counters(**values)
