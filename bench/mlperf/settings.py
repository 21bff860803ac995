"""What a run is to be: LoadGen's settings, with MLPerf's minima or shorter ones that say so."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import mlperf_loadgen
from mlperf.workloads import Workload

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
MLPERF_SECONDS = 600.0
SAMPLES_PER_QUERY = 8  # of MultiStream
# The official seeds of mlperf.conf: the same queries for everybody.
_SEEDS = {
    "qsl_rng_seed": 2085463073848966840,
    "sample_index_rng_seed": 2747215439041700203,
    "schedule_rng_seed": 16159082839903944936,
}
# Fewest queries of a valid run (of samples, in Offline), and fewest that early stopping can judge
# at a percentile.
_MLPERF_QUERIES = {"SingleStream": 1024, "MultiStream": 662, "Server": 100, "Offline": 24_576}
_QUICK_QUERIES = {
    0.99: {"SingleStream": 64, "MultiStream": 662, "Server": 459, "Offline": 1},
    0.9: {"SingleStream": 64, "MultiStream": 64, "Server": 44, "Offline": 1},
}
# LoadGen makes all queries in advance: bytes of each (of a sample, in Offline), measured and
# rounded up, and how many it makes for each that it expects.
_QUERY_BYTES = {"SingleStream": 350, "MultiStream": 850, "Server": 350, "Offline": 130}
_MADE = {"SingleStream": 2.0, "MultiStream": 2.0, "Server": 1.0, "Offline": 1.1}
_MEMORY_SHARE = 0.7


def free_memory_bytes() -> int:
    """What this machine could still give."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else sys.maxsize


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        duration_s: LoadGen's minimum.
        is_valid: MLPerf's minimum counts, and its duration unless another was asked for.
        rate: queries per second: what Server sends, what Offline is expected to reach.
        latency_s: of a query, expected; SingleStream and MultiStream.
        bound_ms: Server's, at `percentile`.
        sut: what stands between LoadGen and the target: "native" (C++) or "python".
        least: of queries (in Offline of samples) instead of MLPerf's; 0 = MLPerf's.
        held_to: samples sent in a second at the most, in Offline; 0 = any number.
        is_probe: of a search, which judges it itself: any number of queries will do.
    """

    workload: Workload
    scenario: str
    mode: str
    target: str
    output: Path
    duration_s: float
    is_valid: bool = False
    rate: float = 0.0
    latency_s: float = 0.001
    bound_ms: float = 5.0
    sut: str = "python"
    least: int = 0
    held_to: float = 0.0
    is_probe: bool = False

    def most_rate(self, memory_bytes: int | None = None) -> float:
        """Queries (in Offline samples) per second to expect whose number LoadGen can keep."""
        free = free_memory_bytes() if memory_bytes is None else memory_bytes
        each = _QUERY_BYTES[self.scenario] * _MADE[self.scenario]
        return _MEMORY_SHARE * free / each / self.duration_s

    @property
    def percentile(self) -> float:
        """The share of queries that must meet Server's bound, and that MultiStream reports."""
        return 0.99 if self.is_valid else self.workload.quick_percentile

    @property
    def is_network(self) -> bool:
        """Whether LoadGen's rules for systems behind a network hold: they have two scenarios."""
        return self.target in ("grpc", "http") and self.scenario in ("Server", "Offline")

    @property
    def label(self) -> str:
        """What every output says of the run's length; "" for MLPerf's own minima."""
        if self.mode == "accuracy":
            return ""
        held = f"HELD BACK to {self.held_to:,.0f} samples/s" if self.held_to else ""
        return ", ".join(part for part in (self._length, held) if part)

    @property
    def _length(self) -> str:
        if not self.is_valid:
            asks = self.scenario in ("MultiStream", "Server") and self.percentile != 0.99
            which = f", at the {100 * self.percentile:g}th percentile" if asks else ""
            return f"QUICK ({self.duration_s:g} s{which}; no MLPerf result)"
        cuts = []
        if self.duration_s < MLPERF_SECONDS:
            cuts.append(f"{self.duration_s:g} s instead of {MLPERF_SECONDS:g}")
        if 0 < self.least < (usual := _MLPERF_QUERIES[self.scenario]):
            unit = "samples" if self.scenario == "Offline" else "queries"
            cuts.append(f"{self.least:,} {unit} instead of {usual:,}")
        return f"SHORTENED (at least {' and '.join(cuts)})" if cuts else ""

    @property
    def window(self) -> int:
        """Samples under way: bounded in Offline only, where all are asked for at once."""
        is_bounded = self.scenario == "Offline" and self.target != "null"
        return self.workload.window if is_bounded else 0

    def values(self) -> dict[str, int | float]:
        """LoadGen's TestSettings, by the names of their fields."""
        counts = _MLPERF_QUERIES if self.is_valid else _QUICK_QUERIES[self.percentile]
        latency_ns = max(1, round(self.latency_s * 1e9))
        return {
            **_SEEDS,
            "min_duration_ms": round(self.duration_s * 1000),
            "min_query_count": 1 if self.is_probe else self.least or counts[self.scenario],
            "single_stream_expected_latency_ns": latency_ns,
            "multi_stream_expected_latency_ns": latency_ns,
            "multi_stream_samples_per_query": SAMPLES_PER_QUERY,
            "multi_stream_target_latency_percentile": self.percentile,
            "server_target_qps": self.rate or 1.0,
            "server_target_latency_ns": round(self.bound_ms * 1e6),
            "server_target_latency_percentile": self.percentile,
            "offline_expected_qps": self.rate or 1.0,
        }

    @property
    def test_mode(self) -> str:
        """LoadGen's name for the mode."""
        return "AccuracyOnly" if self.mode == "accuracy" else "PerformanceOnly"

    def loadgen(self) -> mlperf_loadgen.TestSettings:
        """As LoadGen's Python module wants it."""
        settings = mlperf_loadgen.TestSettings()
        settings.scenario = getattr(mlperf_loadgen.TestScenario, self.scenario)
        settings.mode = getattr(mlperf_loadgen.TestMode, self.test_mode)
        for name, value in self.values().items():
            setattr(settings, name, value)
        return settings

    def log_settings(self) -> mlperf_loadgen.LogSettings:
        """LoadGen's own logs, in the output folder."""
        settings = mlperf_loadgen.LogSettings()
        output = mlperf_loadgen.LogOutputSettings()
        output.outdir = str(self.output)
        settings.log_output = output
        settings.enable_trace = False
        return settings
