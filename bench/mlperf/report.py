"""A run's report beside LoadGen's logs: report.md, report.html (self-contained), results.json."""

from __future__ import annotations

import json
import math
from html import escape
from itertools import pairwise

import numpy as np
from mlperf.run import Result
from mlperf.svg import line_plot

Rows = list[tuple[str, str]]
Points = list[tuple[float, float]]
_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto}td{padding:.1em 1em .1em 0}"
    "svg{width:560px;font-size:11px}polyline{fill:none;stroke:#06c;stroke-width:1.5}"
    ".grid{stroke:#ddd}strong{color:#a00}"
)
_PERCENTILES = ("50.00", "90.00", "99.00", "99.90")


def title(result: Result) -> str:
    """Model, scenario, target, verdict, and QUICK where it was."""
    plan = result.plan
    words = [plan.workload.name, plan.scenario, plan.mode, f"target {plan.target}", result.verdict]
    return " · ".join([*words, plan.label] if plan.label else words)


def figures(result: Result) -> Rows:
    """What was measured."""
    rows = [("result", result.verdict)]
    rows += [("why not", reason) for reason in result.reasons]
    if result.plan.label:
        rows.append(("length", result.plan.label))
    if result.plan.scenario == "Server":
        bound = f"{result.plan.bound_ms:g} ms at the 99th percentile"
        official = result.plan.bound_ms == result.plan.workload.latency_ms
        is_mlperf = official and result.plan.workload.official_latency
        rows.append(("latency bound", bound + (" (MLPerf's)" if is_mlperf else "")))
        rows.append(("rate asked for", f"{result.plan.rate:,.1f} queries/s"))
    if result.accuracy is not None:
        least = result.plan.workload.least_accuracy
        rows.append(("accuracy", f"{result.accuracy:.4f} (at least {least:.4f})"))
    rows.append(("right answers", f"{len(result.ended_s):,}"))
    rows.append(("answers per second", f"{result.samples_per_s:,.1f}"))
    for percent in _PERCENTILES:
        value = result.percentile_ms(percent)
        if not math.isnan(value):
            rows.append((f"latency p{float(percent):g} (LoadGen)", f"{value:,.3f} ms"))
    rows += _server_figures(result)
    return rows


def _server_figures(result: Result) -> Rows:
    if len(result.ticks) < 2 or not result.ticks[-1].counters.batches:
        return []
    first, last = result.ticks[0], result.ticks[-1]
    batches = last.counters.batches - first.counters.batches
    requests = last.counters.requests - first.counters.requests
    if not batches or not requests:
        return []
    rows = last.counters.rows - first.counters.rows
    busy_s = (last.counters.busy_ns - first.counters.busy_ns) / 1e9
    queued_ms = (last.counters.queued_ns - first.counters.queued_ns) / requests / 1e6
    return [
        ("rows of a batch, mean", f"{rows / batches:.2f}"),
        ("instance busy", f"{100 * busy_s / (last.at_s - first.at_s):.1f} %"),
        ("time in the queue, mean", f"{queued_ms:.3f} ms"),
    ]


def plots(result: Result) -> list[str]:
    """Latency, throughput, and what the server's counters say, over time."""
    made = [
        line_plot("latency, cumulative", "ms", "share of answers", _cdf(result.latencies_us)),
        line_plot("answers", "s", "per second", _throughput(result.ended_s)),
    ]
    names = ("rows of a batch", "busy, share", "age of the queue, ms")
    series: dict[str, Points] = {name: [] for name in names}
    for a, b in pairwise(result.ticks):
        batches = b.counters.batches - a.counters.batches
        requests = b.counters.requests - a.counters.requests
        seconds = b.at_s - a.at_s
        busy = (b.counters.busy_ns - a.counters.busy_ns) / 1e9 / seconds
        series["busy, share"].append((b.at_s, busy))
        if batches:
            rows = b.counters.rows - a.counters.rows
            series["rows of a batch"].append((b.at_s, rows / batches))
        if requests:
            queued = (b.counters.queued_ns - a.counters.queued_ns) / requests / 1e6
            series["age of the queue, ms"].append((b.at_s, queued))
    return made + [line_plot(name, "s", "", points) for name, points in series.items()]


def _cdf(latencies_us: np.ndarray) -> Points:
    if not len(latencies_us):
        return []
    shares = np.linspace(0, 0.999, 200)
    return list(zip(np.quantile(latencies_us, shares) / 1e3, shares, strict=True))


def _throughput(ended_s: np.ndarray) -> Points:
    if not len(ended_s):
        return []
    bins = min(60, max(2, len(ended_s) // 20))
    counts, edges = np.histogram(ended_s, bins, (0, float(ended_s[-1])))
    width = float(edges[1] - edges[0])
    return [(float(edge), count / width) for edge, count in zip(edges[1:], counts, strict=True)]


def write(result: Result, tables: dict[str, Rows]) -> None:
    """Writes the three files into the run's folder."""
    output = result.plan.output
    tables = {"Result": figures(result), **tables}
    summary = {name: text for name, text in result.summary.items() if len(text) < 200}
    content = {"title": title(result), "tables": tables, "loadgen": summary}
    (output / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    (output / "report.md").write_text(_markdown(result, tables))
    (output / "report.html").write_text(_html(result, tables))


def _markdown(result: Result, tables: dict[str, Rows]) -> str:
    parts = [f"# {title(result)}\n"]
    for name, rows in tables.items():
        lines = [f"| {key} | {value} |" for key, value in rows]
        parts.append("\n".join([f"## {name}\n", "| what | value |", "|---|---|", *lines, ""]))
    parts.append("Plots: report.html. LoadGen's own logs: mlperf_log_*.\n")
    return "\n".join(parts)


def _html(result: Result, tables: dict[str, Rows]) -> str:
    heading = escape(title(result))
    parts = [f'<!doctype html><meta charset="utf-8"><title>{heading}</title>']
    parts += [f"<style>{_STYLE}</style><h1>{heading}</h1>"]
    if result.plan.label:
        parts.append(f"<p><strong>{escape(result.plan.label)}</strong></p>")
    for name, rows in tables.items():
        lines = [f"<tr><td>{escape(key)}<td>{escape(value)}" for key, value in rows]
        parts.append(f"<h2>{escape(name)}</h2><table>{''.join(lines)}</table>")
    return "\n".join([*parts, *plots(result)]) + "\n"
