"""Replays arrivals against an autoscaler: what it costs, and how long requests would wait.

A fluid model in steps of a second. Requests wait in one queue, first come first served; a replica
that is up serves `instances / service_s` requests a second; one that is added is up after
`start_s`. The autoscaler is asked every `period_s` and, as Kubernetes' HPA does by default, may
double the fleet or add four in that time, whichever is more; away from zero it goes at once, as
KEDA's stream makes it.

`PolicyScaler` is the policy itself, on signals combined as a fleet's are; `CpuScaler` is the HPA on
CPU, at its best: CPU is in proportion to the work, which on a server of accelerators it is not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from penstock.scaling.policy import PolicySettings, PolicyState, decide
from penstock.scaling.signals import ReplicaSignals, combine

__all__ = ["Autoscaler", "CpuScaler", "Moment", "PolicyScaler", "Second", "World", "simulate"]

_HPA_TOLERANCE = 0.1
_HPA_DOWN_WINDOW_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is simulated.

    Attributes:
        service_s: instance-seconds of a request.
        instances: of a replica.
        start_s: from a decision until a replica serves.
        period_s: between two questions to the autoscaler.
        initial: replicas at the beginning.
    """

    service_s: float = 0.1
    instances: int = 1
    start_s: int = 60
    period_s: int = 15
    initial: int = 2


@dataclass(frozen=True, slots=True)
class Second:
    """One step.

    Attributes:
        arrived: requests that came.
        served: requests that were served.
        waited_s: time that these had waited, together.
        pending: requests that wait at its end.
        oldest_s: how long the oldest of them has waited.
        replicas: that are up.
        wanted: those and the ones that start.
        busy: share of the instances' time, 0 to 1.
    """

    arrived: float
    served: float
    waited_s: float
    pending: float
    oldest_s: float
    replicas: int
    wanted: int
    busy: float


@dataclass(frozen=True, slots=True)
class Moment:
    """What an autoscaler is asked about: all seconds up to now."""

    at_s: int
    past: Sequence[Second]

    def last(self, seconds: int) -> Sequence[Second]:
        """The latest of them."""
        return self.past[-seconds:]


Autoscaler = Callable[[Moment], int]
"""Replicas that there should be."""


@dataclass(slots=True)
class PolicyScaler:
    """The policy, on the signals of `window_s`."""

    settings: PolicySettings
    world: World
    window_s: int = 30
    _state: PolicyState = field(default_factory=PolicyState)

    def __call__(self, moment: Moment) -> int:
        """Its decision."""
        window = moment.last(self.window_s)
        now = window[-1]
        up = now.replicas
        share = 1 / max(1, up)
        instances = self.world.instances
        busy_s = sum(each.busy * each.replicas for each in window) * instances
        replica = ReplicaSignals(
            window_s=len(window),
            arrived=sum(each.arrived for each in window) * share,
            completed=sum(each.served for each in window) * share,
            queue_s=sum(each.waited_s for each in window) * share,
            busy_s=busy_s * share,
            pending=now.pending * share,
            running=now.busy * instances,
            instances=instances,
        )
        # At zero it is a gateway that holds what waits.
        signals = combine("m", [replica] * up, waiting=0.0 if up else now.pending)
        decision, self._state = decide(self.settings, self._state, signals, moment.at_s)
        return decision.replicas


@dataclass(slots=True)
class CpuScaler:
    """Kubernetes' HPA on CPU: the average of `lag_s`, a tolerance of 10 %, 300 s of down window."""

    target: float = 0.7
    least: int = 1
    most: int = 40
    lag_s: int = 30
    _advice: deque[tuple[int, int]] = field(default_factory=deque)

    def __call__(self, moment: Moment) -> int:
        """What it would set."""
        window = moment.last(self.lag_s)
        now = window[-1]
        ratio = sum(each.busy for each in window) / len(window) / self.target
        desired = now.replicas * ratio if abs(ratio - 1) > _HPA_TOLERANCE else now.replicas
        # Replicas that start are no reason to take them away again.
        wanted = math.ceil(desired) if ratio < 1 else max(now.wanted, math.ceil(desired))
        self._advice.append((moment.at_s, wanted))
        while moment.at_s - self._advice[0][0] > _HPA_DOWN_WINDOW_S:
            self._advice.popleft()
        stable = max(count for _, count in self._advice)
        return min(self.most, max(self.least, wanted if wanted > now.wanted else stable))


def simulate(arrivals: Sequence[float], autoscaler: Autoscaler, world: World) -> list[Second]:
    """Replays requests per second against an autoscaler, second by second."""
    queue: deque[tuple[int, float]] = deque()
    starting: deque[int] = deque()
    past: list[Second] = []
    up = world.initial
    for at_s, arrived in enumerate(arrivals):
        while starting and starting[0] <= at_s:
            starting.popleft()
            up += 1
        if arrived > 0:
            queue.append((at_s, arrived))
        capacity = up * world.instances / world.service_s
        served, waited_s = _serve(queue, at_s, capacity)
        oldest_s = at_s - queue[0][0] + 1 if queue else 0
        pending = sum(count for _, count in queue)
        wanted = up + len(starting)
        busy = served / capacity if capacity else 0.0
        past.append(
            Second(arrived, served, waited_s, pending, oldest_s, up, wanted, min(1.0, busy))
        )
        if at_s % world.period_s == 0 or (wanted == 0 and pending > 0):
            target = min(autoscaler(Moment(at_s, past)), max(wanted * 2, wanted + 4))
            starting.extend([at_s + world.start_s] * (target - wanted))
            while target < up + len(starting):
                if starting:
                    starting.pop()
                else:
                    up -= 1
    return past


def _serve(queue: deque[tuple[int, float]], at_s: int, capacity: float) -> tuple[float, float]:
    """Takes what can be served from the queue: how much, and the time that it waited."""
    served = waited_s = 0.0
    while queue and served < capacity:
        came_s, count = queue.popleft()
        part = min(count, capacity - served)
        served += part
        waited_s += part * (at_s - came_s)
        if part < count:
            queue.appendleft((came_s, count - part))
    return served, waited_s
