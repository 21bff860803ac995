"""When the answers of a run came: what reports need of it, in a size that the run does not have."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

QUANTILES = 200
GREATEST_SHARE = 0.999
BIN_S = 0.1


@dataclass(frozen=True)
class Times:
    """Of the right answers.

    Attributes:
        count: how many.
        mean_us: of their latencies, from issue to answer.
        quantiles: (share, us that this share of them does not exceed), in order.
        bin_s: width of the bins.
        bins: answers that ended in each, from the run's beginning on.
        seconds: from the first to the last answer.
    """

    count: int = 0
    mean_us: float = 0.0
    quantiles: list[tuple[float, float]] = field(default_factory=list)
    bin_s: float = BIN_S
    bins: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers, between the first and the last."""
        return (self.count - 1) / self.seconds if self.seconds > 0 else 0.0


def from_arrays(began_ns: int, done_ns: array[int], latency_ns: array[int]) -> Times:
    """Times of answers that ended at `done_ns`, in that order."""
    if not done_ns:
        return Times()
    ended_s = (np.array(done_ns) - began_ns) / 1e9
    latencies_us = np.array(latency_ns) / 1e3
    shares = np.linspace(0, GREATEST_SHARE, QUANTILES)
    edges = np.arange(int(ended_s[-1] / BIN_S) + 2) * BIN_S
    values = np.quantile(latencies_us, shares)
    return Times(
        count=len(ended_s),
        mean_us=float(latencies_us.mean()),
        quantiles=list(zip(shares.tolist(), values.tolist(), strict=True)),
        bins=np.histogram(ended_s, edges)[0].tolist(),
        seconds=float(ended_s[-1] - ended_s[0]),
    )
