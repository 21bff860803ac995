"""What `/metrics` shows: Triton's `nv_inference_*` counters and our own `penstock_*`.

Everything is read at scrape time from the counters of the core; nothing is counted twice and
nothing is added to the path of a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from penstock.codec import VersionStatistics
from penstock.observe.devices import device_families
from penstock.observe.exposition import CONTENT_TYPE, Family, Kind, render
from penstock.observe.gpu import GpuMonitor
from penstock.observe.memory import instance_changes, memory_families
from penstock.observe.models import model_families
from penstock.observe.process import process_families
from penstock.observe.store import store_families

__all__ = ["UNLOGGED", "GpuMonitor", "Metrics"]

Stats = Mapping[str, Any]

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
UNLOGGED = (
    "penstock_access_log_dropped_total",
    "Calls without a line in the access log: they came faster than it is written",
)
_SHARE = 0.05
"""Of the event loop's time that rendering may take where it is asked for without end."""
_MOST_CREDIT_S = 0.25
"""What rendering may take at once after a rest: scrapes in ordinary numbers are always fresh."""


class Metrics:
    """Renders a scrape.

    However often it is scraped, rendering takes no more than a share of the time: a scrape beyond
    that gets the text of the one before.

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
        instances: Callable[[], Mapping[tuple[str, int, str], int]] = dict,
        memory: Callable[[], Stats | None] = lambda: None,
        engines: Callable[[], Stats | None] = lambda: None,
        transport: Callable[[], Mapping[str, int]] = dict,
        gpus: Callable[[], Iterable[Family]] = tuple,
        peaks: Mapping[str, float] = MappingProxyType({}),
        http: Callable[[], Iterable[Family]] = tuple,
        unlogged: Callable[[], int] = lambda: 0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = gpus
        self._peaks = peaks
        self._http = http
        self._unlogged = unlogged
        self._jobs = jobs
        self._store = store
        self._instances = instances
        self._memory = memory
        self._engines = engines
        self._versions = versions
        self._transport = transport
        self._engine = engine
        self._is_ready = is_ready
        self._monotonic_s = monotonic_s
        self._credit_s = _MOST_CREDIT_S
        self._looked_s = monotonic_s()
        self._text = b""

    def render(self) -> tuple[str, bytes]:
        """Content type and text."""
        began_s = self._monotonic_s()
        earned_s = _SHARE * (began_s - self._looked_s)
        self._credit_s = min(self._credit_s + earned_s, _MOST_CREDIT_S)
        self._looked_s = began_s
        if self._credit_s > 0 or not self._text:
            self._text = render(self._families())
            self._credit_s -= self._monotonic_s() - began_s
        return CONTENT_TYPE, self._text

    def _families(self) -> Iterator[Family]:
        versions = [each for each in self._versions() if each.counters]
        yield from model_families(versions)
        yield from device_families(versions, self._peaks)
        engine = self._engine()
        yield from _engine_families(engine)
        yield instance_changes(self._instances())
        if (memory := self._memory()) is not None:
            yield from memory_families(memory, engine["wait_hist_us"])
        if (engines := self._engines()) is not None:
            yield from _engine_cache_families(engines)
        transport = self._transport()
        yield from _transport_families(transport)
        yield from self._http()
        unlogged = Family(*UNLOGGED, "counter")
        unlogged.add({}, self._unlogged() + transport.get("access_log_dropped", 0))
        yield unlogged
        yield _gauge("penstock_ready", "1 while the server is ready", float(self._is_ready()))
        if self._jobs is not None:
            yield from _job_families(self._jobs())
        if self._store is not None:
            yield from store_families(self._store())
        yield from self._gpus()
        yield from process_families()


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


def _engine_cache_families(stats: Stats) -> Iterator[Family]:
    """Of engines that are built of ONNX models, once one was used."""
    yield _gauge("penstock_engine_cache_bytes", "Bytes of built engines on disk", stats["bytes"])
    text = "Built engines removed to keep the cache's bound"
    removed = Family("penstock_engine_cache_removed_total", text, "counter")
    removed.add({}, stats["removed"])
    yield removed


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


def _gauge(name: str, text: str, value: float) -> Family:
    family = Family(name, text, "gauge")
    family.add({}, value)
    return family
