"""The plot from the raw results: digits at the most in flight, throughput and CPU time, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from peers.table import OURS, Cell, Row, rows

_LINE, _TOP, _LABEL, _WIDE, _GAP = 22, 46, 130, 300, 40
_STYLE = (
    "text{font:12px sans-serif}.g{stroke:#ddd}.o{fill:#c33;stroke:#c33}.p{fill:#36c;stroke:#36c}"
)


def scale(value: float, low: int, high: int) -> float:
    """Where a value lies between 10**low and 10**high, 0 to 1."""
    return (math.log10(value) - low) / (high - low)


def render(results: Mapping[str, Any]) -> str:
    """Two panels, a dot for each median on a logarithmic axis, a line from least to greatest."""
    found = [(row, _last(row)) for row in rows(results, "digits")]
    high = _TOP + _LINE * len(found) + 30
    wide = _LABEL + 2 * _WIDE + _GAP + 20
    parts = [f"<style>{_STYLE}</style>", f'<rect width="{wide}" height="{high}" fill="#fff"/>']
    for index, (row, _) in enumerate(found):
        y = _TOP + _LINE * (index + 0.5) + 4
        name = escape(f"{row.peer} {row.route}")
        parts.append(f'<text x="{_LABEL - 10}" y="{y}" text-anchor="end">{name}</text>')
    for left, figure, title in (
        (_LABEL, "rate", "requests a second, the most in flight"),
        (_LABEL + _WIDE + _GAP, "cpu_us", "server CPU, us a request"),
    ):
        parts += _panel(found, left, figure, title) if found else []
    size = f'width="{wide}" height="{high}" viewBox="0 0 {wide} {high}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>\n'


def _last(row: Row) -> Cell:
    return [cell for point, cell in row.cells.items() if point[0] == "c"][-1]


def _panel(found: list[tuple[Row, Cell]], left: int, figure: str, title: str) -> list[str]:
    values = [max(each[figure], 1e-3) for _, cell in found for each in cell.records]
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    bottom = _TOP + _LINE * len(found)
    parts = [f'<text x="{left + _WIDE / 2}" y="18" text-anchor="middle">{title}</text>']
    for power in range(low, high + 1):
        x = left + _WIDE * (power - low) / (high - low)
        parts.append(f'<line class="g" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        label = f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    for index, (row, cell) in enumerate(found):
        y = _TOP + _LINE * (index + 0.5)
        each = [max(record[figure], 1e-3) for record in cell.records]
        least, middle, most = (
            left + _WIDE * scale(value, low, high)
            for value in (min(each), max(cell.middle(figure), 1e-3), max(each))
        )
        kind = "o" if row.peer == OURS else "p"
        parts.append(f'<line class="{kind}" x1="{least:.1f}" y1="{y}" x2="{most:.1f}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{middle:.1f}" cy="{y}" r="4"/>')
    return parts
