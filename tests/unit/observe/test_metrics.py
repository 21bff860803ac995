"""A scrape, read back with the parser of prometheus_client."""

import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.scraped import ENGINE, STATS

from penstock.codec import VersionStatistics
from penstock.observe.exposition import Family, render
from penstock.observe.metrics import Metrics

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
        ("penstock_drained_total", 3),
        ("penstock_oldest_request_age_seconds", 0.25),
        ("penstock_instances", 2),
        ("penstock_available_instances", 2),
        ("penstock_busy_instances", 1),
        ("penstock_instance_busy_seconds_total", 1.5),
        ("penstock_backend_batch_seconds_total", 0.75),
        ("penstock_background_pending_requests", 6),
        ("penstock_background_running_requests", 4),
        ("penstock_background_oldest_request_age_seconds", 9),
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


@pytest.mark.parametrize(
    "which",
    ["request", "queue", "compute_input", "compute_infer", "compute_output", "compute"],
)
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


def test_gateway_api_gauges_add_up_over_models_and_have_no_labels() -> None:
    samples, _ = scrape(VersionStatistics("m", 1, STATS), VersionStatistics("n", 4, STATS))
    assert samples["TotalQueuedRequests", frozenset()] == 4
    assert samples["TotalRunningRequests", frozenset()] == 2
    nothing, _ = scrape()
    assert nothing["TotalQueuedRequests", frozenset()] == 0


class Clock:
    """Stands still, but while something is rendered."""

    def __init__(self, render_s: float) -> None:
        self.now_s = 0.0
        self.render_s = render_s
        self.renders = 0

    def stats(self) -> dict[str, Any]:
        self.now_s += self.render_s
        self.renders += 1
        return {**ENGINE, "accepted": self.renders}


def scrape_often(clock: Clock, times: int, period_s: float) -> list[bytes]:
    metrics = Metrics(
        versions=list,
        engine=clock.stats,
        is_ready=lambda: True,
        monotonic_s=lambda: clock.now_s,
    )
    texts = []
    for _ in range(times):
        texts.append(metrics.render()[1])
        clock.now_s += period_s
    return texts


def test_scrapes_a_second_apart_are_always_fresh() -> None:
    clock = Clock(render_s=0.04)
    texts = scrape_often(clock, 100, 1.0)
    assert b"penstock_accepted_total 100\n" in texts[-1]


def test_scrapes_at_100_hz_take_a_twentieth_of_the_time_and_go_on_moving() -> None:
    clock = Clock(render_s=0.02)
    texts = scrape_often(clock, 3000, 0.01)
    spent_s = clock.renders * clock.render_s
    assert spent_s < 0.05 * clock.now_s + 0.3
    assert spent_s > 0.04 * clock.now_s
    assert f"penstock_accepted_total {clock.renders}\n".encode() in texts[-1]


def test_engine_and_process_are_there_without_models() -> None:
    samples, types = scrape()
    assert samples["penstock_ready", frozenset()] == 1
    assert samples["penstock_accepted_total", frozenset()] == 9
    assert samples["penstock_inflight_requests", frozenset()] == 3
    assert samples["penstock_completed_total", frozenset({("code", "INTERNAL")})] == 1
    assert samples["penstock_refused_total", frozenset({("reason", "size")})] == 2
    assert samples["process_resident_memory_bytes", frozenset()] > 1 << 20
    assert samples["process_virtual_memory_bytes", frozenset()] > 1 << 20
    assert samples["process_max_fds", frozenset()] > samples["process_open_fds", frozenset()] >= 3
    assert samples["process_threads", frozenset()] >= 1
    age_s = time.time() - samples["process_start_time_seconds", frozenset()]
    assert -2 < age_s < 86400  # the kernel's ticks and its idea of the boot are coarse
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


def test_operations_are_shown_where_they_are_known() -> None:
    samples, _ = scrape(
        VersionStatistics("m", 1, STATS, operations=lambda: 8_000_000_000),
        VersionStatistics("n", 2, STATS),
    )
    name = "penstock_model_operations_per_inference"
    found = {key: value for key, value in samples.items() if name in str(key)}
    assert list(found.values()) == [8e9]
    assert "m" in str(next(iter(found)))
