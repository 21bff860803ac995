"""A replica's `/metrics` as counters: what is needed of it, checked, and nothing else.

A replica may be broken or lie. Its answer is refused whole where a number is not finite, negative
or beyond counting, a line of ours is no sample, or there are more models than any server has: a
replica that says nonsense is one that does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.scaling.signals import Counters, Series

__all__ = ["METRIC_NAMES", "ReadingError", "gateway_waiting", "read_metrics"]

MAX_VERSIONS = 10_000
MAX_LINE = 16_384
_MAX_VALUE = 1e18
"""More than any server has counted; all sums of such numbers are finite."""
_US_PER_S = 1e6

_COUNTERS: Mapping[str, tuple[str, float]] = {
    "nv_inference_request_success": ("success", 1.0),
    "nv_inference_request_failure": ("failure", 1.0),
    "penstock_rejected_total": ("rejected", 1.0),
    "nv_inference_queue_duration_us": ("queue_s", 1 / _US_PER_S),
    "penstock_instance_busy_seconds_total": ("busy_s", 1.0),
    "penstock_background_busy_seconds_total": ("background_s", 1.0),
    "penstock_pending_requests": ("pending", 1.0),
    "penstock_running_requests": ("running", 1.0),
    "penstock_instances": ("instances", 1.0),
}
METRIC_NAMES = frozenset(_COUNTERS)
"""What a replica's metrics must have been named for this to work."""

_WAITING = "penstock_gateway_waiting_requests"
_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*", re.ASCII)
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


class ReadingError(ValueError):
    """What was read is not what a replica says; the text tells why, for the log."""


def read_metrics(text: str) -> dict[Series, Counters]:
    """Counters by model and version; raises ReadingError."""
    found: dict[Series, dict[str, float]] = {}
    for line in text.split("\n"):
        name = _name(line)
        if name not in _COUNTERS:
            continue
        labels, value = _sample(line)
        field, scale = _COUNTERS[name]
        try:
            series = labels["model"], labels["version"]
        except KeyError:
            raise ReadingError(f"{name} without a model and a version") from None
        values = found.setdefault(series, {})
        values[field] = values.get(field, 0.0) + value * scale
        if len(found) > MAX_VERSIONS:
            raise ReadingError(f"more than {MAX_VERSIONS} versions of models")
    return {series: Counters(**values) for series, values in found.items()}


def gateway_waiting(text: str) -> float:
    """Requests that a gateway holds while no server is up; raises ReadingError."""
    for line in text.split("\n"):
        if _name(line) == _WAITING:
            return _sample(line)[1]
    raise ReadingError(f"no {_WAITING} in it")


def _name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]


def _sample(line: str) -> tuple[dict[str, str], float]:
    matched = _SAMPLE.fullmatch(line) if len(line) <= MAX_LINE else None
    try:
        if matched is None:
            raise ValueError
        value = float(matched[3])
    except ValueError:
        raise ReadingError(f"no sample: {line[:200]!r}") from None
    if not 0 <= value <= _MAX_VALUE:  # nor is NaN
        raise ReadingError(f"{matched[1]} is {matched[3]}")
    return _labels(matched[2] or ""), value


def _labels(text: str) -> dict[str, str]:
    labels, at = {}, 0
    while at < len(text):
        matched = _LABEL.match(text, at)
        if matched is None:
            raise ReadingError(f"no labels: {text[:200]!r}")
        labels[matched[1]] = _ESCAPE.sub(_unescaped, matched[2])
        at = matched.end()
    return labels


def _unescaped(matched: re.Match[str]) -> str:
    return "\n" if matched[1] == "n" else matched[1]
