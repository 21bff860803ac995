"""What the core and its neighbours count, and the scrape of a server that has all of them."""

from types import SimpleNamespace
from typing import Any

from penstock.codec import VersionStatistics
from penstock.gateway.fleet_metrics import render_fleet
from penstock.gateway.observed import HttpCounters
from penstock.observe.gpu import read_gpus
from penstock.observe.metrics import Metrics
from penstock_gateway.pool import Pool, PoolOptions, Replica

_HIST = {"bounds": [100, 1000], "counts": [1, 2, 3], "sum": 5000}
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
    "batch_stats": {
        1: {"count": 1, "compute_input_ns": 1, "compute_infer_ns": 250_000_000},
        3: {"count": 2, "compute_input_ns": 1, "compute_infer_ns": 500_000_000},
    },
    "queue_hist_us": _HIST,
    "compute_input_hist_us": _HIST,
    "compute_infer_hist_us": _HIST,
    "compute_output_hist_us": _HIST,
    "compute_hist_us": _HIST,
    "request_hist_us": _HIST,
    "drained": 3,
    "oldest_age_ns": 250_000_000,
    "instances": 2,
    "available_instances": 2,
    "busy_instances": 1,
    "worker_restarts": 3,
    "busy_ns": 1_500_000_000,
    "background": {
        "pending": 6,
        "oldest_age_ns": 9_000_000_000,
        "running": 4,
        "accepted": 20,
        "success": 8,
        "fail": 2,
        "rows": 64,
        "batches": 5,
        "busy_ns": 500_000_000,
    },
    "devices": [
        {
            "kind": "GPU",
            "id": 0,
            "name": "Fake GPU",
            "uuid": "GPU-0",
            "memory_bytes": 700,
            "graph_bytes": 300,
            "graph_budget_bytes": 500,
            "graphs": [
                {"rows": 1, "runs": 4, "padded_rows": 0},
                {"rows": 8, "runs": 2, "padded_rows": 5},
            ],
            "uncaptured_runs": 3,
            "uncaptured_padded_rows": 2,
            "row_changes": 1,
            "busy_ns": 1_250_000_000,
        }
    ],
}
ENGINE = {
    "accepted": 9,
    "inflight": 3,
    "completed": {"OK": 5, "INTERNAL": 1},
    "refused": {"size": 2},
    "wait_hist_us": _HIST,
}
MEMORY = {
    "budget": 1000,
    "resident": {"m": 100},
    "evictions": 1,
    "loads": {"done": 2, "failed": 0},
}
ENGINE_CACHE = {"bytes": 5, "removed": 2}
JOBS = {"rows": 1, "rejected": 2, "running": 3, "queued": 4, "ended": {"DONE": 5}}
STORE = {
    "is_up": True,
    "unreported": 0,
    "generation": 7,
    "deployments": {"done": 1, "failed": 0},
    "serving": {"m": (1, "sha256:1")},
}
TRANSPORT = {
    "accepted_connections": 9,
    "refused_connections": 1,
    "open_connections": 2,
    "calls": 30,
    "active_calls": 3,
    "bytes_read": 1000,
    "bytes_written": 2000,
    "buffered_bytes": 10,
    "access_log_dropped": 2,
}
NVML = SimpleNamespace(
    NVMLError=RuntimeError,
    nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=25),
    nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=80, used=5),
    nvmlDeviceGetPowerUsage=lambda _: 1000,
    nvmlDeviceGetPowerManagementLimit=lambda _: 2000,
    nvmlDeviceGetTotalEnergyConsumption=lambda _: 3000,
)


def http_counters() -> HttpCounters:
    """Of an HTTP side that was asked."""
    counters = HttpCounters()
    counters.count("/v2/models/{model}/infer", "200")
    return counters


def full_scrape() -> str:
    """The text of a server with everything that has metrics."""
    metrics = Metrics(
        versions=lambda: [
            VersionStatistics("m", 1, STATS, lambda: 8_000_000_000, "GPU 0 (Fake GPU)", "Fake 1")
        ],
        engine=lambda: ENGINE,
        is_ready=lambda: True,
        jobs=lambda: JOBS,
        store=lambda: STORE,
        instances=lambda: {("m", 1, "added"): 1},
        memory=lambda: MEMORY,
        engines=lambda: ENGINE_CACHE,
        transport=lambda: TRANSPORT,
        gpus=lambda: read_gpus(NVML, {"GPU-0": 0}),
        http=http_counters().families,
        peaks={"GPU": 6e14},
    )
    return metrics.render()[1].decode()


def fleet_scrape() -> str:
    """The text of a gateway in front of a server."""
    replica = Replica("10.0.0.1:8001", SimpleNamespace())
    return render_fleet(Pool([replica], PoolOptions()), http_counters(), lambda: 0)[1].decode()
