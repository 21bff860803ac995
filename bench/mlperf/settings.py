"""What a run is to be: LoadGen's settings, with MLPerf's minima or shorter ones that say so."""

from __future__ import annotations

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
# Fewest queries of a valid run (of samples, in Offline), and fewest that early stopping can judge.
_MLPERF_QUERIES = {"SingleStream": 1024, "MultiStream": 662, "Server": 100, "Offline": 24_576}
_QUICK_QUERIES = {"SingleStream": 64, "MultiStream": 662, "Server": 459, "Offline": 1}


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        duration_s: LoadGen's minimum.
        is_valid: MLPerf's minimum counts, and its duration unless another was asked for.
        rate: queries per second: what Server sends, what Offline is expected to reach.
        latency_s: of a query, expected; SingleStream and MultiStream.
        bound_ms: Server's, at the 99th percentile.
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

    @property
    def label(self) -> str:
        """What every output says of the run's length; "" for MLPerf's own minima."""
        if self.mode == "accuracy":
            return ""
        if not self.is_valid:
            return f"QUICK ({self.duration_s:g} s; no MLPerf result)"
        if self.duration_s < MLPERF_SECONDS:
            return f"SHORTENED (at least {self.duration_s:g} s instead of {MLPERF_SECONDS:g})"
        return ""

    @property
    def window(self) -> int:
        """Samples under way: bounded in Offline only, where all are asked for at once."""
        is_bounded = self.scenario == "Offline" and self.target != "null"
        return self.workload.window if is_bounded else 0

    def loadgen(self) -> mlperf_loadgen.TestSettings:
        """As LoadGen wants it."""
        settings = mlperf_loadgen.TestSettings()
        settings.scenario = getattr(mlperf_loadgen.TestScenario, self.scenario)
        is_accuracy = self.mode == "accuracy"
        modes = mlperf_loadgen.TestMode
        settings.mode = modes.AccuracyOnly if is_accuracy else modes.PerformanceOnly
        settings.min_duration_ms = round(self.duration_s * 1000)
        counts = _MLPERF_QUERIES if self.is_valid else _QUICK_QUERIES
        settings.min_query_count = counts[self.scenario]
        for name, seed in _SEEDS.items():
            setattr(settings, name, seed)
        latency_ns = max(1, round(self.latency_s * 1e9))
        settings.single_stream_expected_latency_ns = latency_ns
        settings.multi_stream_expected_latency_ns = latency_ns
        settings.multi_stream_samples_per_query = SAMPLES_PER_QUERY
        settings.multi_stream_target_latency_percentile = 0.99
        settings.server_target_qps = self.rate or 1.0
        settings.server_target_latency_ns = round(self.bound_ms * 1e6)
        settings.server_target_latency_percentile = 0.99
        settings.offline_expected_qps = self.rate or 1.0
        return settings

    def log_settings(self) -> mlperf_loadgen.LogSettings:
        """LoadGen's own logs, in the output folder."""
        settings = mlperf_loadgen.LogSettings()
        output = mlperf_loadgen.LogOutputSettings()
        output.outdir = str(self.output)
        settings.log_output = output
        settings.enable_trace = False
        return settings
