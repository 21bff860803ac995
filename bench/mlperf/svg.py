"""Line plots as inline SVG: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = (
    "svg{width:560px;font:11px sans-serif}polyline{fill:none;stroke:#06c;stroke-width:1.5}"
    ".grid{stroke:#ddd}"
)
_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 15, 30, 40


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line_plot(title: str, x_name: str, y_name: str, points: Sequence[tuple[float, float]]) -> str:
    """One line through points, axes from 0; says so where there are no points."""
    x_most = max((x for x, _ in points), default=0) or 1.0
    y_most = max((y for _, y in points), default=0) or 1.0
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> str:
        return f"{_LEFT + wide * x / x_most:.1f},{_TOP + high * (1 - y / y_most):.1f}"

    parts = [f'<text x="{_WIDTH / 2}" y="18" text-anchor="middle">{escape(title)}</text>']
    for step in range(5):
        x, y = _LEFT + wide * step / 4, _TOP + high * (1 - step / 4)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        label = _number(y_most * step / 4)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
        label = _number(x_most * step / 4)
        parts.append(f'<text x="{x}" y="{_TOP + high + 16}" text-anchor="middle">{label}</text>')
    names = f"{escape(x_name)} / {escape(y_name)}"
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{names}</text>')
    if points:
        parts.append(f'<polyline points="{" ".join(place(x, y) for x, y in points)}"/>')
    else:
        parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">none</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def as_file(plot: str) -> str:
    """A plot as a file of its own, for Markdown to show."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
    first, rest = plot.removeprefix("<svg ").split(">", 1)
    return f"{head}{first}><style>{STYLE}</style>{rest}\n"
