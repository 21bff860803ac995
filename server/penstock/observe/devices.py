"""What `/metrics` shows of what models run on: where, what they hold there, how batches ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from penstock.codec import VersionStatistics
from penstock.observe.exposition import Family, Kind

__all__ = ["device_families"]

_Value = Callable[[Mapping[str, Any]], float]

_PER_DEVICE: Sequence[tuple[str, _Value, Kind, str]] = (
    (
        "penstock_model_device_busy_seconds_total",
        lambda use: use["busy_ns"] / 1e9,
        "counter",
        "Time in which the device computed at least one batch of the version, or had it to compute",
    ),
    (
        "penstock_model_device_memory_bytes",
        itemgetter("memory_bytes"),
        "gauge",
        "By how much the device's free memory shrank when the model was loaded",
    ),
    (
        "penstock_uncaptured_runs_total",
        itemgetter("uncaptured_runs"),
        "counter",
        "Batches that ran without a graph",
    ),
    (
        "penstock_uncaptured_padded_rows_total",
        itemgetter("uncaptured_padded_rows"),
        "counter",
        "Rows computed and thrown away in batches without a graph",
    ),
    (
        "penstock_row_changes_total",
        itemgetter("row_changes"),
        "counter",
        "Batches that changed how many rows the engine runs, of an engine that pays for it",
    ),
    (
        "penstock_graph_memory_bytes",
        itemgetter("graph_bytes"),
        "gauge",
        "Device memory that the model's graphs hold",
    ),
    (
        "penstock_graph_memory_budget_bytes",
        itemgetter("graph_budget_bytes"),
        "gauge",
        "Device memory that the model's graphs may hold",
    ),
)
_PER_GRAPH: Sequence[tuple[str, str, str]] = (
    ("penstock_graph_runs_total", "runs", "Batches that ran as the graph of a batch size"),
    (
        "penstock_graph_padded_rows_total",
        "padded_rows",
        "Rows computed and thrown away to fill the batch size of a graph",
    ),
)


_PEAK = (
    "penstock_model_peak_operations_per_second",
    "Operations per second that the version's devices were measured to reach",
)
_CPU = "CPU"


def device_families(
    versions: Sequence[VersionStatistics], peaks: Mapping[str, float]
) -> Iterator[Family]:
    """Where each version runs; of those on devices beside the CPU, how.

    Args:
        versions: with counters.
        peaks: operations per second by "CPU", "GPU", name or UUID.
    """
    info = Family("penstock_model_info", "What a version is run by, and on what", "gauge")
    for each in versions:
        info.add({**_labels(each), "engine": each.engine, "runs_on": each.runs_on}, 1.0)
    yield info
    peak = Family(*_PEAK, "gauge")
    for each in versions:
        if (rate := _peak(each, peaks)) is not None:
            peak.add(_labels(each), rate)
    yield peak
    used = [
        ({**_labels(each), "gpu_uuid": use["uuid"]}, use)
        for each in versions
        for use in each.counters["devices"]
    ]
    for name, value, kind, text in _PER_DEVICE:
        family = Family(name, text, kind)
        for labels, use in used:
            family.add(labels, value(use))
        yield family
    for name, key, text in _PER_GRAPH:
        yield _per_graph(Family(name, text, "counter"), key, used)


def _peak(version: VersionStatistics, peaks: Mapping[str, float]) -> float | None:
    """Of all its devices together; None where it is not known of each of them.

    Where a Python model computes nobody knows.
    """
    if version.peak is not None:
        return version.peak
    if version.runs_on == _CPU:
        return peaks.get(_CPU)
    rates = [_peak_of(use, peaks) for use in version.counters["devices"]]
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known and len(known) == len(rates) else None


def _peak_of(use: Mapping[str, Any], peaks: Mapping[str, float]) -> float | None:
    keys = [use["uuid"], use["name"]]
    if not use["uuid"].startswith("MIG-"):  # a slice does not reach what its GPU does
        keys.append(use["kind"])
    return next((peaks[key] for key in keys if key in peaks), None)


def _per_graph(
    family: Family, key: str, used: Sequence[tuple[dict[str, str], Mapping[str, Any]]]
) -> Family:
    for labels, use in used:
        for graph in use["graphs"]:
            family.add({**labels, "bucket": str(graph["rows"])}, graph[key])
    return family


def _labels(version: VersionStatistics) -> dict[str, str]:
    return {"model": version.name, "version": str(version.version)}
