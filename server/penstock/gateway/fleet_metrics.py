"""What `/metrics` of `penstock gateway` shows; its table is in clients/gateway/README.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.gateway.observed import HttpCounters
from penstock.observe.exposition import CONTENT_TYPE, Family, Kind, render
from penstock.observe.metrics import UNLOGGED
from penstock.observe.process import process_families
from penstock_gateway.pool import Pool

__all__ = ["render_fleet"]


def render_fleet(
    pool: Pool, counters: HttpCounters, unlogged: Callable[[], int]
) -> tuple[str, bytes]:
    """Content type and text.

    Args:
        pool: the servers.
        counters: of HTTP requests.
        unlogged: how many calls the access log has no line of.
    """
    return CONTENT_TYPE, render(_families(pool, counters, unlogged()))


def _families(pool: Pool, counters: HttpCounters, unlogged: int) -> Iterator[Family]:
    yield from counters.families()
    yield _single(*UNLOGGED, "counter", unlogged)
    yield from _waiting(pool)
    text = "Requests that were sent again, to another server or the same"
    yield _single("penstock_gateway_retries_total", text, "counter", pool.retries)
    usable = sum(each.is_usable for each in pool.replicas)
    text = "Servers that take requests"
    yield _single("penstock_gateway_usable_servers", text, "gauge", usable)
    yield from _upstreams(pool)
    yield from process_families()


def _waiting(pool: Pool) -> Iterator[Family]:
    """What tells a scaler at zero replicas that there should be one."""
    text = "Requests held while no server is up"
    yield _single("penstock_gateway_waiting_requests", text, "gauge", pool.waiting)
    text = "Bytes of these requests"
    yield _single("penstock_gateway_waiting_bytes", text, "gauge", pool.waiting_bytes)
    text = "Requests that were not held, or in vain, by the bound that was met"
    refused = Family("penstock_gateway_refused_total", text, "counter")
    for bound, count in pool.refused.items():
        refused.add({"bound": bound}, count)
    yield refused


def _upstreams(pool: Pool) -> Iterator[Family]:
    reachable = Family("penstock_gateway_upstream_up", "1 while the server answers", "gauge")
    ready = Family("penstock_gateway_upstream_ready", "1 while the server is ready", "gauge")
    inflight = Family("penstock_gateway_upstream_inflight_requests", "Calls under way", "gauge")
    for replica in pool.replicas:
        labels = {"upstream": replica.address}
        reachable.add(labels, float(replica.is_reachable))
        ready.add(labels, float(replica.is_ready))
        inflight.add(labels, replica.outstanding)
    yield from (reachable, ready, inflight)


def _single(name: str, text: str, kind: Kind, value: float) -> Family:
    family = Family(name, text, kind)
    family.add({}, value)
    return family
