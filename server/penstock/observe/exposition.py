"""Metric families and the Prometheus text format, version 0.0.4.

Written here because Triton's counters have no `_total` at the end, which prometheus_client adds.

::

    # HELP name text
    # TYPE name counter
    name{label="value"} 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CONTENT_TYPE", "Family", "Kind", "render"]

Kind = Literal["counter", "gauge", "histogram"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(slots=True)
class Family:
    """A metric with its samples.

    Attributes:
        name: with unit and suffix, as it is written.
        help: one line.
        kind: of the metric.
        samples: suffix of the name, labels and value.
    """

    name: str
    help: str
    kind: Kind
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)

    def add(self, labels: Mapping[str, str], value: float) -> None:
        """Adds a sample of a counter or gauge."""
        self.samples.append(("", labels, value))

    def add_histogram(
        self,
        labels: Mapping[str, str],
        bounds: Sequence[float],
        counts: Sequence[int],
        total: float,
    ) -> None:
        """Adds a histogram.

        Args:
            labels: of every sample.
            bounds: upper bounds of the buckets, ascending, without +Inf.
            counts: observations in each bucket alone; one more than bounds.
            total: sum of the observed values.
        """
        running = 0
        for bound, count in zip([*map(_number, bounds), "+Inf"], counts, strict=True):
            running += count
            self.samples.append(("_bucket", {**labels, "le": bound}, running))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, running))


def render(families: Iterable[Family]) -> bytes:
    """The text that a scrape gets."""
    return "".join(line for family in families for line in _lines(family)).encode()


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {family.help}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for suffix, labels, value in family.samples:
        pairs = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        inside = f"{{{pairs}}}" if pairs else ""
        yield f"{family.name}{suffix}{inside} {_number(value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
