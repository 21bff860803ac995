"""What `/metrics` shows of each version that is served, under Triton's names and our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from penstock.codec import VersionStatistics
from penstock.observe.exposition import Family, Kind

__all__ = ["model_families"]

Stats = Mapping[str, Any]
Labelled = Sequence[tuple[dict[str, str], Stats]]
Value = Callable[[Stats], float]

_DURATIONS = {
    "nv_inference_queue_duration_us": ("queue", "time in the queue"),
    "nv_inference_compute_input_duration_us": ("compute_input", "time gathering inputs"),
    "nv_inference_compute_infer_duration_us": ("compute_infer", "time running the model"),
    "nv_inference_compute_output_duration_us": ("compute_output", "time writing responses"),
}
_HISTOGRAMS = {
    "penstock_request_duration_seconds": ("request_hist_us", "from acceptance to response"),
    "penstock_queue_duration_seconds": ("queue_hist_us", "in the queue"),
    "penstock_compute_input_duration_seconds": ("compute_input_hist_us", "gathering inputs"),
    "penstock_compute_infer_duration_seconds": ("compute_infer_hist_us", "running the model"),
    "penstock_compute_output_duration_seconds": ("compute_output_hist_us", "writing responses"),
    "penstock_compute_duration_seconds": ("compute_hist_us", "in a batch that runs"),
}
_BY_LABEL = {
    "penstock_rejected_total": ("rejected", "reason", "Requests refused by the model's queue"),
    "penstock_timeouts_total": ("timeouts", "reason", "Requests whose time ran out"),
    "penstock_cancelled_total": ("cancelled", "stage", "Requests whose caller left"),
    "penstock_failures_total": ("failures", "code", "Requests failed, by gRPC code"),
    "penstock_batches_total": ("batch_close", "reason", "Batches formed, by why they closed"),
}


def _seconds(key: str) -> Value:
    return lambda stats: stats[key] / 1e9


_SINGLE: Mapping[str, tuple[Value, Kind, str]] = {
    "penstock_drained_total": (
        itemgetter("drained"),
        "counter",
        "Requests failed in the queue because their version was unloaded",
    ),
    "penstock_pending_requests": (itemgetter("pending"), "gauge", "Requests in the queue"),
    "penstock_running_requests": (
        itemgetter("running"),
        "gauge",
        "Requests in a batch that runs",
    ),
    "penstock_oldest_request_age_seconds": (
        _seconds("oldest_age_ns"),
        "gauge",
        "How long the oldest request in the queue has waited; 0 = none waits",
    ),
    "penstock_instances": (itemgetter("instances"), "gauge", "Instances of the version"),
    "penstock_available_instances": (
        itemgetter("available_instances"),
        "gauge",
        "Instances that can run a batch: where models run in workers, those whose worker is up",
    ),
    "penstock_busy_instances": (
        itemgetter("busy_instances"),
        "gauge",
        "Instances that run a batch now",
    ),
    "penstock_worker_restarts_total": (
        itemgetter("worker_restarts"),
        "counter",
        "Workers that a model runs in, which were started again after they had ended",
    ),
    "penstock_backend_batch_seconds_total": (
        lambda stats: sum(each["compute_infer_ns"] for each in stats["batch_stats"].values()) / 1e9,
        "counter",
        "Time that each batch that served somebody was with the backend, all batches together",
    ),
    "penstock_instance_busy_seconds_total": (
        _seconds("busy_ns"),
        "counter",
        "Time instances spent on batches that ended",
    ),
}
_BACKGROUND: Mapping[str, tuple[Value, Kind, str]] = {
    "penstock_background_pending_requests": (
        itemgetter("pending"),
        "gauge",
        "Background requests in the queue",
    ),
    "penstock_background_running_requests": (
        itemgetter("running"),
        "gauge",
        "Background requests in a batch that runs",
    ),
    "penstock_background_oldest_request_age_seconds": (
        _seconds("oldest_age_ns"),
        "gauge",
        "How long the oldest background request in the queue has waited; 0 = none waits",
    ),
    "penstock_background_rows_total": (
        itemgetter("rows"),
        "counter",
        "Rows of background requests inferred",
    ),
    "penstock_background_batches_total": (
        itemgetter("batches"),
        "counter",
        "Batches of background requests alone",
    ),
    "penstock_background_busy_seconds_total": (
        _seconds("busy_ns"),
        "counter",
        "Time instances spent on batches of background requests alone",
    ),
}
_OPERATIONS = (
    "penstock_model_operations_per_inference",
    "Multiplications and additions of an inference, counted in its graph, or as its configuration "
    "says",
)
# Triton's reasons; what is not here is OTHER.
_TRITON_REASONS = {"UNAVAILABLE": "REJECTED", "CANCELLED": "CANCELED", "INTERNAL": "BACKEND"}


def model_families(versions: Sequence[VersionStatistics]) -> Iterator[Family]:
    """The families that have samples per served version, and the sums over all of them."""
    labelled = [
        ({"model": each.name, "version": str(each.version)}, each.counters) for each in versions
    ]
    yield from _triton_families(labelled)
    for name, (key, text) in _HISTOGRAMS.items():
        yield _histogram(name, key, f"Time of answered requests {text}", labelled)
    for name, (key, label, text) in _BY_LABEL.items():
        family = Family(name, text, "counter")
        for labels, stats in labelled:
            for reason, count in stats[key].items():
                family.add({**labels, label: reason}, count)
        yield family
    for name, (value, kind, text) in _SINGLE.items():
        yield _per_version(name, text, kind, labelled, value)
    yield _batch_sizes(labelled)
    yield _operations(versions)
    yield from _background_families(labelled)
    yield from _gateway_api_families(labelled)


def _operations(versions: Sequence[VersionStatistics]) -> Family:
    family = Family(*_OPERATIONS, "gauge")
    for each in versions:
        operations = each.operations()
        if operations is not None:
            family.add({"model": each.name, "version": str(each.version)}, operations)
    return family


def _histogram(name: str, key: str, text: str, labelled: Labelled) -> Family:
    family = Family(name, text, "histogram")
    for labels, stats in labelled:
        hist = stats[key]
        bounds = [bound / 1e6 for bound in hist["bounds"]]
        family.add_histogram(labels, bounds, hist["counts"], hist["sum"] / 1e6)
    return family


def _background_families(labelled: Labelled) -> Iterator[Family]:
    """What is counted of background requests; every other family of a version leaves them out."""
    of_each = [(labels, stats["background"]) for labels, stats in labelled]
    for name, (value, kind, text) in _BACKGROUND.items():
        yield _per_version(name, text, kind, of_each, value)
    ended = Family(
        "penstock_background_requests_total", "Background requests that ended, by how", "counter"
    )
    for labels, stats in of_each:
        for outcome in ("success", "fail"):
            ended.add({**labels, "outcome": outcome}, stats[outcome])
    yield ended


def _gateway_api_families(labelled: Labelled) -> Iterator[Family]:
    """The two gauges by which a Gateway API inference extension chooses a server: no labels."""
    for name, key, text in (
        ("TotalQueuedRequests", "pending", "Requests in the queues of all models"),
        ("TotalRunningRequests", "running", "Requests of all models in a batch that runs"),
    ):
        family = Family(name, text, "gauge")
        family.add({}, sum(stats[key] for _, stats in labelled))
        yield family


def _triton_families(labelled: Labelled) -> Iterator[Family]:
    def counter(name: str, text: str, value: Value) -> Family:
        return _per_version(name, text, "counter", labelled, value)

    yield counter("nv_inference_request_success", "Requests answered", _count("success"))
    yield _triton_failures(labelled)
    yield counter("nv_inference_count", "Rows inferred", itemgetter("inference_count"))
    yield counter("nv_inference_exec_count", "Batches run", itemgetter("execution_count"))
    yield counter(
        "nv_inference_request_duration_us", "Cumulative time of requests", _microseconds("success")
    )
    for name, (key, text) in _DURATIONS.items():
        yield counter(name, f"Cumulative {text}", _microseconds(key))
    yield _per_version(
        "nv_inference_pending_request_count",
        "Requests in the queue",
        "gauge",
        labelled,
        itemgetter("pending"),
    )


def _triton_failures(labelled: Labelled) -> Family:
    family = Family("nv_inference_request_failure", "Requests failed", "counter")
    for labels, stats in labelled:
        reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        for code, count in stats["failures"].items():
            reasons[_TRITON_REASONS.get(code, "OTHER")] += count
        for reason, count in reasons.items():
            family.add({**labels, "reason": reason}, count)
    return family


def _batch_sizes(labelled: Labelled) -> Family:
    """Rows per batch; buckets end at powers of two, the last of them at 1024."""
    family = Family("penstock_batch_rows", "Rows of the batches that ran", "histogram")
    for labels, stats in labelled:
        sizes: Mapping[int, int] = stats["batch_sizes"]
        bounds = [1 << bit for bit in range(11)]
        counts = [0] * (len(bounds) + 1)
        for rows, batches in sizes.items():
            counts[min(len(bounds), max(0, rows - 1).bit_length())] += batches
        total = sum(rows * batches for rows, batches in sizes.items())
        family.add_histogram(labels, bounds, counts, total)
    return family


def _per_version(name: str, text: str, kind: Kind, labelled: Labelled, value: Value) -> Family:
    family = Family(name, text, kind)
    for labels, stats in labelled:
        family.add(labels, value(stats))
    return family


def _count(key: str) -> Value:
    return lambda stats: stats[key]["count"]


def _microseconds(key: str) -> Value:
    return lambda stats: stats[key]["ns"] // 1000
