"""What the demo prints of its run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from penstock.commands._demo_load import LoadResult

if TYPE_CHECKING:
    from rich.console import Console

_BAR_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_REASONS = {
    "idle_instance": "an instance was idle",
    "full": "full",
    "preferred": "preferred size reached",
    "delay": "delay over",
    "shape_change": "next request had another shape",
    "drain": "drain",
    "background": "only background requests waited",
}


def print_result(
    console: Console, result: LoadResult, sizes: Mapping[int, int], reasons: Mapping[str, int]
) -> None:
    """Prints accuracy, speed and batches.

    Args:
        console: where to.
        result: what the clients saw.
        sizes: model executions by rows.
        reasons: batches by why they closed; empty = unknown.
    """
    agreed = len(result.latencies_s) - len(result.disagreements)
    milliseconds = [f"{result.percentile_s(p) * 1e3:.2f}" for p in (50, 90, 99)]
    console.print()
    console.print(f"accuracy    {result.accuracy:.4f} on {len(result.correct)} held-out images")
    console.print(f"agreement   {agreed} of {len(result.latencies_s)} answers are scikit-learn's")
    console.print(f"throughput  {result.throughput:,.0f} requests/s, one row each")
    console.print(
        f"latency     p50 {milliseconds[0]}  p90 {milliseconds[1]}  p99 {milliseconds[2]} ms"
    )
    rows, batches = sum(rows * n for rows, n in sizes.items()), sum(sizes.values())
    console.print(f"batches     {batches:,}, {rows / max(1, batches):.1f} rows on average")
    console.print()
    for line in chart(sizes, ascii_only=console.options.ascii_only):
        console.print(line)
    console.print()
    if reasons:
        told = ", ".join(f"{_REASONS.get(why, why)} {count:,}" for why, count in reasons.items())
        console.print(f"why batches closed: {told}")
    if rows < 2 * batches:
        console.print(
            "an idle instance takes what waits at once; --queue-delay-us 300 shows fuller batches"
        )


def chart(sizes: Mapping[int, int], *, ascii_only: bool = False) -> Iterator[str]:
    """A bar per range of batch sizes; lengths are shares of the most frequent range.

    Args:
        sizes: model executions by rows.
        ascii_only: what the terminal can show.
    """
    ranges = _ranges(sizes)
    most = max(ranges.values(), default=0)
    yield "rows per batch   batches"
    for (low, high), count in ranges.items():
        name = f"{low}" if low == high else f"{low}-{high}"
        yield f"{name:>14}   {count:>7,}  {bar(count / most if most else 0.0, ascii_only)}"


def bar(share: float, ascii_only: bool = False) -> str:
    """A bar of blocks for a share of 0 to 1; anything above 0 shows."""
    if ascii_only:
        return "#" * math.ceil(share * _BAR_WIDTH)
    eighths = round(share * _BAR_WIDTH * 8)
    if share > 0:
        eighths = max(1, eighths)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _ranges(sizes: Mapping[int, int]) -> dict[tuple[int, int], int]:
    """Counts in ranges that end at powers of two, from 1 to the one that holds the greatest."""
    ranges: dict[tuple[int, int], int] = {}
    high = 1
    while sizes and high < 2 * max(sizes):
        low = high // 2 + 1
        ranges[low, high] = sum(count for rows, count in sizes.items() if low <= rows <= high)
        high *= 2
    return ranges
