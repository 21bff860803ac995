"""A scrape, read back with the parser of prometheus_client."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.codec import VersionStatistics
from penstock.observe.exposition import Family, render
from penstock.observe.metrics import Metrics

HIST = {"bounds": [100, 1000], "counts": [1, 2, 3], "sum": 5000}
STATS: dict[str, Any] = {
    "success": {"count": 5, "ns": 9_000_000},
    "fail": {"count": 4, "ns": 1},
    "queue": {"count": 5, "ns": 1_500},
    "compute_input": {"count": 5, "ns": 2_000},
    "compute_infer": {"count": 5, "ns": 3_000},
    "compute_output": {"count": 5, "ns": 4_000},
    "inference_count": 7,
    "execution_count": 3,
    "last_inference_ms": 1,
    "pending": 2,
    "running": 1,
    "rejected": {"queue_full": 1},
    "timeouts": {"queue_timeout": 1, "deadline": 1},
    "cancelled": {"queued": 1, "running": 0},
    "failures": {"UNAVAILABLE": 2, "CANCELLED": 1, "INTERNAL": 3, "DEADLINE_EXCEEDED": 4},
    "batch_close": {"full": 1, "preferred": 0, "delay": 0, "idle_instance": 2},
    "batch_sizes": {1: 1, 3: 2},
    "batch_stats": {},
    "queue_hist_us": HIST,
    "compute_hist_us": HIST,
    "request_hist_us": HIST,
    "instances": 2,
    "busy_ns": 1_500_000_000,
    "background": {
        "pending": 6,
        "running": 4,
        "accepted": 20,
        "success": 8,
        "fail": 2,
        "rows": 64,
        "batches": 5,
        "busy_ns": 500_000_000,
    },
}
ENGINE = {
    "accepted": 9,
    "inflight": 3,
    "completed": {"OK": 5, "INTERNAL": 1},
    "refused": {"size": 2},
}
LABELS = {"model": "m", "version": "1"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(*versions: VersionStatistics) -> tuple[Samples, dict[str, str]]:
    metrics = Metrics(versions=lambda: versions, engine=lambda: ENGINE, is_ready=lambda: True)
    kind, text = metrics.render()
    assert kind.startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(text.decode()))
    samples: Samples = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    types = {f.name: f.type for f in families}
    return samples, types


def value(samples: Samples, name: str, **labels: str) -> float:
    pairs = frozenset({**LABELS, **labels}.items())
    if (f"{name}_total", pairs) in samples:  # the parser gives every counter this ending
        return samples[f"{name}_total", pairs]
    return samples[name, pairs]


@pytest.fixture
def samples() -> Samples:
    return scrape(VersionStatistics("m", 1, STATS))[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nv_inference_request_success", 5),
        ("nv_inference_count", 7),
        ("nv_inference_exec_count", 3),
        ("nv_inference_request_duration_us", 9000),
        ("nv_inference_queue_duration_us", 1),
        ("nv_inference_compute_input_duration_us", 2),
        ("nv_inference_compute_infer_duration_us", 3),
        ("nv_inference_compute_output_duration_us", 4),
        ("nv_inference_pending_request_count", 2),
        ("penstock_pending_requests", 2),
        ("penstock_running_requests", 1),
        ("penstock_instances", 2),
        ("penstock_instance_busy_seconds_total", 1.5),
        ("penstock_background_pending_requests", 6),
        ("penstock_background_running_requests", 4),
        ("penstock_background_rows_total", 64),
        ("penstock_background_batches_total", 5),
        ("penstock_background_busy_seconds_total", 0.5),
    ],
)
def test_counters_have_tritons_names_and_the_cores_values(
    samples: Samples, name: str, expected: float
) -> None:
    assert value(samples, name) == expected


@pytest.mark.parametrize(
    ("reason", "expected"), [("REJECTED", 2), ("CANCELED", 1), ("BACKEND", 3), ("OTHER", 4)]
)
def test_failures_have_tritons_reasons(samples: Samples, reason: str, expected: float) -> None:
    assert value(samples, "nv_inference_request_failure", reason=reason) == expected


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("penstock_rejected_total", {"reason": "queue_full"}, 1),
        ("penstock_timeouts_total", {"reason": "deadline"}, 1),
        ("penstock_cancelled_total", {"stage": "queued"}, 1),
        ("penstock_failures_total", {"code": "INTERNAL"}, 3),
        ("penstock_batches_total", {"reason": "idle_instance"}, 2),
        ("penstock_background_requests_total", {"outcome": "success"}, 8),
        ("penstock_background_requests_total", {"outcome": "fail"}, 2),
    ],
)
def test_our_counters_say_why(
    samples: Samples, name: str, label: dict[str, str], expected: float
) -> None:
    assert value(samples, name, **label) == expected


@pytest.mark.parametrize("which", ["request", "queue", "compute"])
def test_histograms_are_cumulative_and_in_seconds(samples: Samples, which: str) -> None:
    name = f"penstock_{which}_duration_seconds"
    buckets = [value(samples, f"{name}_bucket", le=le) for le in ("0.0001", "0.001", "+Inf")]
    assert buckets == [1, 3, 6]
    assert value(samples, f"{name}_count") == 6
    assert value(samples, f"{name}_sum") == 0.005


def test_batch_sizes_fall_into_powers_of_two(samples: Samples) -> None:
    buckets = [value(samples, "penstock_batch_rows_bucket", le=le) for le in ("1", "2", "4")]
    assert buckets == [1, 1, 3]
    assert value(samples, "penstock_batch_rows_sum") == 7


def test_engine_and_process_are_there_without_models() -> None:
    samples, types = scrape()
    assert samples["penstock_ready", frozenset()] == 1
    assert samples["penstock_accepted_total", frozenset()] == 9
    assert samples["penstock_inflight_requests", frozenset()] == 3
    assert samples["penstock_completed_total", frozenset({("code", "INTERNAL")})] == 1
    assert samples["penstock_refused_total", frozenset({("reason", "size")})] == 2
    assert samples["process_resident_memory_bytes", frozenset()] > 1 << 20
    assert samples["process_open_fds", frozenset()] >= 3
    assert types["nv_inference_count"] == "counter"
    assert types["penstock_queue_duration_seconds"] == "histogram"


def test_version_that_was_closed_meanwhile_is_left_out() -> None:
    samples, _ = scrape(VersionStatistics("m", 1, STATS), VersionStatistics("m", 2, {}))
    assert not [key for key in samples if ("version", "2") in key[1]]


def test_tritons_counters_are_written_without_an_ending() -> None:
    metrics = Metrics(
        versions=lambda: [VersionStatistics("m", 1, STATS)],
        engine=lambda: ENGINE,
        is_ready=lambda: True,
    )
    _, text = metrics.render()
    assert b'\nnv_inference_count{model="m",version="1"} 7\n' in text


def test_label_values_are_escaped() -> None:
    family = Family("x", "y", "gauge")
    family.add({"model": 'a"b\\c\nd'}, 1)
    assert b'x{model="a\\"b\\\\c\\nd"} 1\n' in render([family])
