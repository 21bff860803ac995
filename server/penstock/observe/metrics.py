"""What `/metrics` shows: Triton's `nv_inference_*` counters and our own `penstock_*`.

Everything is read at scrape time from the counters of the core; nothing is counted twice and
nothing is added to the path of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from penstock.codec import VersionStatistics
from penstock.observe.exposition import CONTENT_TYPE, Family, Kind, render
from penstock.observe.gpu import GpuMonitor
from penstock.observe.process import process_families
from penstock.observe.store import store_families

__all__ = ["GpuMonitor", "Metrics", "model_families"]

Stats = Mapping[str, Any]

_DURATIONS = {
    "nv_inference_queue_duration_us": ("queue", "time in the queue"),
    "nv_inference_compute_input_duration_us": ("compute_input", "time gathering inputs"),
    "nv_inference_compute_infer_duration_us": ("compute_infer", "time running the model"),
    "nv_inference_compute_output_duration_us": ("compute_output", "time writing responses"),
}
_HISTOGRAMS = {
    "penstock_request_duration_seconds": ("request_hist_us", "from acceptance to response"),
    "penstock_queue_duration_seconds": ("queue_hist_us", "in the queue"),
    "penstock_compute_duration_seconds": ("compute_hist_us", "running the model"),
}
_BY_LABEL = {
    "penstock_rejected_total": ("rejected", "reason", "Requests refused by the model's queue"),
    "penstock_timeouts_total": ("timeouts", "reason", "Requests whose time ran out"),
    "penstock_cancelled_total": ("cancelled", "stage", "Requests whose caller left"),
    "penstock_failures_total": ("failures", "code", "Requests failed, by gRPC code"),
    "penstock_batches_total": ("batch_close", "reason", "Batches formed, by why they closed"),
}
_GAUGES = {
    "penstock_pending_requests": ("pending", "Requests in the queue"),
    "penstock_running_requests": ("running", "Requests in a batch that runs"),
    "penstock_instances": ("instances", "Instances of the version"),
}
_BACKGROUND: Mapping[str, tuple[str, Kind, str]] = {
    "penstock_background_pending_requests": (
        "pending",
        "gauge",
        "Background requests in the queue",
    ),
    "penstock_background_running_requests": (
        "running",
        "gauge",
        "Background requests in a batch that runs",
    ),
    "penstock_background_rows_total": ("rows", "counter", "Rows of background requests inferred"),
    "penstock_background_batches_total": (
        "batches",
        "counter",
        "Batches of background requests alone",
    ),
}
_TRANSPORT: Mapping[str, tuple[str, Kind, str]] = {
    "penstock_connections": ("open_connections", "gauge", "Connections of gRPC clients"),
    "penstock_connections_accepted_total": (
        "accepted_connections",
        "counter",
        "Connections taken",
    ),
    "penstock_connections_refused_total": (
        "refused_connections",
        "counter",
        "Connections refused: over the limit, or for want of descriptors",
    ),
    "penstock_calls_total": ("calls", "counter", "gRPC calls begun"),
    "penstock_active_calls": ("active_calls", "gauge", "gRPC calls under way"),
    "penstock_received_bytes_total": ("bytes_read", "counter", "Bytes read from connections"),
    "penstock_sent_bytes_total": ("bytes_written", "counter", "Bytes written to connections"),
    "penstock_buffered_bytes": (
        "buffered_bytes",
        "gauge",
        "Bytes of requests that are being received or not yet answered",
    ),
}
# Triton's reasons; what is not here is OTHER.
_TRITON_REASONS = {"UNAVAILABLE": "REJECTED", "CANCELLED": "CANCELED", "INTERNAL": "BACKEND"}


class Metrics:
    """Renders a scrape.

    Threading: thread-compatible; reads snapshots.
    Ownership: borrows what it reads from.
    """

    def __init__(
        self,
        *,
        versions: Callable[[], Iterable[VersionStatistics]],
        engine: Callable[[], Stats],
        is_ready: Callable[[], bool],
        jobs: Callable[[], Stats] | None = None,
        store: Callable[[], Stats] | None = None,
        transport: Callable[[], Mapping[str, int]] = dict,
        gpus: Callable[[], Iterable[Family]] = tuple,
    ) -> None:
        self._gpus = gpus
        self._jobs = jobs
        self._store = store
        self._versions = versions
        self._transport = transport
        self._engine = engine
        self._is_ready = is_ready

    def render(self) -> tuple[str, bytes]:
        """Content type and text."""
        families = [
            *model_families([each for each in self._versions() if each.counters]),
            *_engine_families(self._engine()),
            *_transport_families(self._transport()),
            _gauge("penstock_ready", "1 while the server is ready", float(self._is_ready())),
            *(_job_families(self._jobs()) if self._jobs is not None else ()),
            *(store_families(self._store()) if self._store is not None else ()),
            *self._gpus(),
            *process_families(),
        ]
        return CONTENT_TYPE, render(families)


def model_families(versions: list[VersionStatistics]) -> Iterator[Family]:
    """The families that have a sample per served version."""
    labelled = [
        ({"model": each.name, "version": str(each.version)}, each.counters) for each in versions
    ]
    yield from _triton_families(labelled)
    for name, (key, text) in _HISTOGRAMS.items():
        family = Family(name, f"Time of requests {text}", "histogram")
        for labels, stats in labelled:
            hist = stats[key]
            bounds = [bound / 1e6 for bound in hist["bounds"]]
            family.add_histogram(labels, bounds, hist["counts"], hist["sum"] / 1e6)
        yield family
    for name, (key, label, text) in _BY_LABEL.items():
        family = Family(name, text, "counter")
        for labels, stats in labelled:
            for reason, count in stats[key].items():
                family.add({**labels, label: reason}, count)
        yield family
    for name, (key, text) in _GAUGES.items():
        yield _per_version(name, text, "gauge", labelled, itemgetter(key))
    yield _per_version(
        "penstock_instance_busy_seconds_total",
        "Time instances spent on batches",
        "counter",
        labelled,
        lambda stats: stats["busy_ns"] / 1e9,
    )
    yield _batch_sizes(labelled)
    yield from _background_families(labelled)


def _background_families(labelled: list[tuple[dict[str, str], Stats]]) -> Iterator[Family]:
    """What is counted of background requests; every other family of a version leaves them out."""
    of_each = [(labels, stats["background"]) for labels, stats in labelled]
    for name, (key, kind, text) in _BACKGROUND.items():
        yield _per_version(name, text, kind, of_each, itemgetter(key))
    ended = Family(
        "penstock_background_requests_total", "Background requests that ended, by how", "counter"
    )
    for labels, stats in of_each:
        for outcome in ("success", "fail"):
            ended.add({**labels, "outcome": outcome}, stats[outcome])
    yield ended
    yield _per_version(
        "penstock_background_busy_seconds_total",
        "Time instances spent on batches of background requests alone",
        "counter",
        of_each,
        lambda stats: stats["busy_ns"] / 1e9,
    )


def _triton_families(labelled: list[tuple[dict[str, str], Stats]]) -> Iterator[Family]:
    def counter(name: str, text: str, value: Callable[[Stats], float]) -> Family:
        return _per_version(name, text, "counter", labelled, value)

    yield counter("nv_inference_request_success", "Requests answered", _count("success"))
    yield _triton_failures(labelled)
    yield counter("nv_inference_count", "Rows inferred", lambda s: s["inference_count"])
    yield counter("nv_inference_exec_count", "Batches run", lambda s: s["execution_count"])
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
        lambda stats: stats["pending"],
    )


def _triton_failures(labelled: list[tuple[dict[str, str], Stats]]) -> Family:
    family = Family("nv_inference_request_failure", "Requests failed", "counter")
    for labels, stats in labelled:
        reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        for code, count in stats["failures"].items():
            reasons[_TRITON_REASONS.get(code, "OTHER")] += count
        for reason, count in reasons.items():
            family.add({**labels, "reason": reason}, count)
    return family


def _batch_sizes(labelled: list[tuple[dict[str, str], Stats]]) -> Family:
    """Rows per batch; buckets end at powers of two, up to the greatest batch seen."""
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


def _engine_families(stats: Stats) -> Iterator[Family]:
    accepted = Family("penstock_accepted_total", "Inference requests accepted", "counter")
    accepted.add({}, stats["accepted"])
    yield accepted
    completed = Family("penstock_completed_total", "Requests completed, by gRPC code", "counter")
    for code, count in stats["completed"].items():
        completed.add({"code": code}, count)
    yield completed
    refused = Family("penstock_refused_total", "Requests refused at admission", "counter")
    for reason, count in stats["refused"].items():
        refused.add({"reason": reason}, count)
    yield refused
    yield _gauge("penstock_inflight_requests", "Accepted, not yet answered", stats["inflight"])


def _job_families(stats: Stats) -> Iterator[Family]:
    """What is counted of batch jobs: of this process, not of the jobs' whole lives."""
    for name, key, text in (
        ("penstock_job_rows_total", "rows", "Input rows of batch jobs that are done"),
        ("penstock_job_rejected_rows_total", "rejected", "Rows of batch jobs that were rejected"),
    ):
        family = Family(name, text, "counter")
        family.add({}, stats[key])
        yield family
    yield _gauge("penstock_jobs_running", "Batch jobs that run", stats["running"])
    yield _gauge("penstock_jobs_queued", "Batch jobs that wait", stats["queued"])
    ended = Family("penstock_jobs_ended_total", "Batch jobs that ended, by how", "counter")
    for state, count in stats["ended"].items():
        ended.add({"state": state.lower()}, count)
    yield ended


def _transport_families(stats: Mapping[str, int]) -> Iterator[Family]:
    """Those of the native transport; grpcio counts nothing of the kind."""
    for name, (key, kind, text) in _TRANSPORT.items():
        if key in stats:
            family = Family(name, text, kind)
            family.add({}, stats[key])
            yield family


def _per_version(
    name: str,
    text: str,
    kind: Any,
    labelled: list[tuple[dict[str, str], Stats]],
    value: Callable[[Stats], float],
) -> Family:
    family = Family(name, text, kind)
    for labels, stats in labelled:
        family.add(labels, value(stats))
    return family


def _gauge(name: str, text: str, value: float) -> Family:
    family = Family(name, text, "gauge")
    family.add({}, value)
    return family


def _count(key: str) -> Callable[[Stats], float]:
    return lambda stats: stats[key]["count"]


def _microseconds(key: str) -> Callable[[Stats], float]:
    return lambda stats: stats[key]["ns"] // 1000
