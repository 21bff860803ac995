"""A run's report beside LoadGen's logs: report.md and plots, report.html (self-contained), JSON."""

from __future__ import annotations

import json
import math
from html import escape
from itertools import pairwise

from mlperf.run import Result
from mlperf.svg import STYLE, as_file, line_plot

Rows = list[tuple[str, str]]
Points = list[tuple[float, float]]
_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto}td{padding:.1em 1em .1em 0}"
    "strong{color:#a00}" + STYLE
)
SUT_KINDS = {"native": "C++", "python": "Python"}
_MOST_POINTS = 100
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
    rows += [("note", note) for note in result.notes]
    if result.plan.label:
        rows.append(("length", result.plan.label))
    rows += _system(result)
    if result.plan.scenario == "Server":
        share = 100 * result.plan.percentile
        bound = f"{result.plan.bound_ms:g} ms at the {share:g}th percentile"
        official = result.plan.is_valid and result.plan.bound_ms == result.plan.workload.latency_ms
        is_mlperf = official and result.plan.workload.official_latency
        rows.append(("latency bound", bound + (" (MLPerf's)" if is_mlperf else "")))
        rows.append(("rate asked for", f"{result.plan.rate:,.1f} queries/s"))
    if result.accuracy is not None:
        least = result.plan.workload.least_accuracy
        rows.append(("accuracy", f"{result.accuracy:.4f} (at least {least:.4f})"))
    rows.append(("right answers", f"{result.times.count:,}"))
    rows.append(("answers per second", f"{result.samples_per_s:,.1f}"))
    for percent in _PERCENTILES:
        value = result.percentile_ms(percent)
        if not math.isnan(value):
            rows.append((f"latency p{float(percent):g} (LoadGen)", f"{value:,.3f} ms"))
    rows += _server_figures(result)
    return rows


def _system(result: Result) -> Rows:
    """Which system was measured, and through what."""
    plan = result.plan
    rows = [("system under test (SUT)", f"{SUT_KINDS[plan.sut]}, named {result.system or '-'}")]
    if plan.is_network:
        rows.append(("over the network", "query dispatch library; the name is the server's own"))
    elif plan.target in ("grpc", "http"):
        rows.append(
            ("over the network", f"{plan.scenario} is no scenario of MLPerf's network runs")
        )
    if plan.target in ("grpc", "http"):
        rows.append(
            ("no submission", "client and server share a machine, a network must be between")
        )
    if result.overhead_us is not None:
        text = f"{result.overhead_us:.2f} us a sample, measured with the null target"
        if result.times.mean_us > 0:
            share = 100 * result.overhead_us / result.times.mean_us
            text += f" ({share:.2g} % of the mean latency)"
        rows.append(("harness overhead", text))
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
        ("device busy", f"{100 * busy_s / (last.at_s - first.at_s):.1f} %"),
        ("time in the queue, mean", f"{queued_ms:.3f} ms"),
    ]


def plots(result: Result) -> dict[str, str]:
    """Latency, throughput, and what the server's counters say, over time; by file name."""
    rows, busy, queue = _counted(result)
    return {
        "latency": line_plot("latency, cumulative", "ms", "share of answers", _cdf(result)),
        "throughput": line_plot("answers", "s", "per second", _throughput(result)),
        "batches": line_plot("rows of a batch", "s", "", rows),
        "busy": line_plot("device busy, share of the time", "s", "", busy),
        "queue": line_plot("age of requests when they left the queue, mean, ms", "s", "", queue),
    }


def _counted(result: Result) -> tuple[Points, Points, Points]:
    """Between looks at the counters: rows of a batch, share of time busy, ms in the queue."""
    sizes, busy, queue = Points(), Points(), Points()
    for a, b in pairwise(result.ticks):
        batches = b.counters.batches - a.counters.batches
        requests = b.counters.requests - a.counters.requests
        busy_s = (b.counters.busy_ns - a.counters.busy_ns) / 1e9
        busy.append((b.at_s, busy_s / (b.at_s - a.at_s)))
        if batches:
            sizes.append((b.at_s, (b.counters.rows - a.counters.rows) / batches))
        if requests:
            queued_ns = b.counters.queued_ns - a.counters.queued_ns
            queue.append((b.at_s, queued_ns / requests / 1e6))
    return _thinned(sizes), _thinned(busy), _thinned(queue)


def _thinned(points: Points) -> Points:
    """Means of neighbours where there are more points than a plot can show."""
    width = max(1, math.ceil(len(points) / _MOST_POINTS))
    parts = [points[at : at + width] for at in range(0, len(points), width)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _cdf(result: Result) -> Points:
    return [(us / 1e3, share) for share, us in result.times.quantiles]


def _throughput(result: Result) -> Points:
    times = result.times
    bins = enumerate(times.bins, 1)
    return _thinned([(at * times.bin_s, count / times.bin_s) for at, count in bins])


def write(result: Result, tables: dict[str, Rows]) -> None:
    """Writes report.md with its plots, report.html and results.json into the run's folder."""
    output = result.plan.output
    tables = {"Result": figures(result), **tables}
    summary = {name: text for name, text in result.summary.items() if len(text) < 200}
    content = {"title": title(result), "tables": tables, "loadgen": summary}
    (output / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    drawn = plots(result)
    folder = output / "plots"
    folder.mkdir(exist_ok=True)
    for name, plot in drawn.items():
        (folder / f"{name}.svg").write_text(as_file(plot))
    (output / "report.md").write_text(_markdown(result, tables, list(drawn)))
    (output / "report.html").write_text(_html(result, tables, list(drawn.values())))


def _markdown(result: Result, tables: dict[str, Rows], plot_names: list[str]) -> str:
    parts = [f"# {title(result)}\n"]
    for name, rows in tables.items():
        lines = [f"| {key} | {value} |" for key, value in rows]
        parts.append("\n".join([f"## {name}\n", "| what | value |", "|---|---|", *lines, ""]))
    parts.append("## Plots\n")
    parts += [f"![{name}](plots/{name}.svg)" for name in plot_names]
    parts.append("\nLoadGen's own logs: mlperf_log_*.\n")
    return "\n".join(parts)


def _html(result: Result, tables: dict[str, Rows], drawn: list[str]) -> str:
    heading = escape(title(result))
    parts = [f'<!doctype html><meta charset="utf-8"><title>{heading}</title>']
    parts += [f"<style>{_STYLE}</style><h1>{heading}</h1>"]
    if result.plan.label:
        parts.append(f"<p><strong>{escape(result.plan.label)}</strong></p>")
    for name, rows in tables.items():
        lines = [f"<tr><td>{escape(key)}<td>{escape(value)}" for key, value in rows]
        parts.append(f"<h2>{escape(name)}</h2><table>{''.join(lines)}</table>")
    return "\n".join([*parts, *drawn]) + "\n"
