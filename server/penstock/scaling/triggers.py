"""What a KEDA ScaledObject asks for: its trigger's metadata, read, and the number that answers it.

KEDA (AverageValue, its default) divides a value by the replicas that there are and compares it with
the target. So every value is of the whole fleet: sums as they are, and what is a ratio or an age
times the replicas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from penstock.errors import InvalidArgumentError
from penstock.scaling.policy import Decision
from penstock.scaling.signals import ModelSignals

__all__ = ["METRICS", "Advice", "Trigger", "read_trigger", "value_of"]


@dataclass(frozen=True, slots=True)
class Advice:
    """A model's signals and what the policy makes of them."""

    signals: ModelSignals
    decision: Decision


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger's metadata.

    Attributes:
        model: its name; empty = all models.
        metric: key of METRICS.
        target: what one replica should have of it.
    """

    model: str
    metric: str
    target: float

    @property
    def metric_name(self) -> str:
        """What GetMetricSpec calls it."""
        return f"penstock-{self.metric}"


def _sum(get: Callable[[ModelSignals], float]) -> Callable[[list[Advice]], float]:
    return lambda advice: sum(get(each.signals) for each in advice)


def _greatest(get: Callable[[ModelSignals], float]) -> Callable[[list[Advice]], float]:
    return lambda advice: max((get(each.signals) for each in advice), default=0.0)


def _queued(signals: ModelSignals) -> float:
    return signals.pending + signals.waiting


METRICS: Mapping[str, Callable[[list[Advice]], float]] = MappingProxyType(
    {
        # Each model has instances of its own on every replica: the neediest decides.
        "replicas": lambda advice: max((each.decision.replicas for each in advice), default=0),
        "concurrency": _sum(lambda s: s.in_flight),
        "queue_depth": _sum(_queued),
        "queue_age_ms": _greatest(lambda s: s.queue_age_s * 1e3 * max(1, s.replicas)),
        "utilisation": _greatest(lambda s: s.utilisation * 100 * s.replicas),
        "rps": _sum(lambda s: s.arrival_rate),
        "rejected": _sum(lambda s: s.rejected_rate),
    }
)
"""By name in the metadata: requests, ms, percent and 1/s, of the fleet."""


def read_trigger(metadata: Mapping[str, str]) -> Trigger:
    """A trigger from its metadata; keys that are not ours (scalerAddress, ...) are let be.

    Raises:
        InvalidArgumentError: a metric that there is not, or no target for one that needs it.
    """
    metric = metadata.get("metric", "replicas")
    if metric not in METRICS:
        raise InvalidArgumentError(f"metric: expected one of {', '.join(METRICS)}, got '{metric}'")
    text = metadata.get("target", "1" if metric == "replicas" else "")
    try:
        target = float(text)
    except ValueError:
        target = math.nan
    if not (math.isfinite(target) and target > 0):
        raise InvalidArgumentError(f"target: expected a number above 0 for {metric}, got '{text}'")
    return Trigger(metadata.get("modelName", ""), metric, target)


def value_of(trigger: Trigger, advice: Iterable[Advice]) -> float:
    """The metric over the trigger's models."""
    return METRICS[trigger.metric](list(advice))
