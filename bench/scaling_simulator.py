"""Replays arrival traces against the scaling policy and, beside it, against the HPA on CPU.

Prints a table; --svg draws queue age and replicas of both. Nothing is served: it is a simulation
(server/penstock/scaling/simulator.py), the same on every machine.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penstock.scaling.policy import PolicySettings
from penstock.scaling.simulator import CpuScaler, PolicyScaler, Second, World, simulate

_HOUR = 3600
_LATE_S = 2.0
_MOST = 40
_WIDTH, _HEIGHT, _MARGIN = 900, 150, 60
_COLOURS = {"policy": "#0b6", "HPA on CPU": "#c33"}


def diurnal(random_: random.Random) -> list[float]:
    """A day: nobody at night, 250 requests/s at the peak."""
    day = 24 * _HOUR
    return [
        noisy(random_, max(0.0, -250 * math.cos(2 * math.pi * t / day) - 20)) for t in range(day)
    ]


def spike(random_: random.Random) -> list[float]:
    """20 requests/s, and 200 for five minutes."""
    return [noisy(random_, 200 if 600 <= t < 900 else 20) for t in range(_HOUR)]


def step(random_: random.Random) -> list[float]:
    """20 requests/s, 150 for half an hour, 20 again."""
    return [noisy(random_, 150 if 600 <= t < 2400 else 20) for t in range(_HOUR)]


TRACES: dict[str, Callable[[random.Random], list[float]]] = {
    "diurnal": diurnal,
    "spike": spike,
    "step": step,
}


def noisy(random_: random.Random, rate: float) -> float:
    """Arrivals of a second: near to Poisson."""
    return max(0.0, round(random_.gauss(rate, math.sqrt(rate)))) if rate else 0.0


def quantile_s(seconds: Sequence[Second], share: float) -> float:
    """How long the share of requests at most waited; of requests, not of seconds."""
    waits = sorted((each.waited_s / each.served, each.served) for each in seconds if each.served)
    left = share * sum(count for _, count in waits)
    for wait, count in waits:
        left -= count
        if left <= 0:
            return wait
    return waits[-1][0]


def row(trace: str, name: str, seconds: Sequence[Second]) -> str:
    """A line of the table."""
    served = sum(each.served for each in seconds)
    late = sum(e.served for e in seconds if e.served and e.waited_s / e.served > _LATE_S) / served
    hours = sum(each.wanted for each in seconds) / _HOUR
    work = served * World().service_s / World().instances / _HOUR
    changes = sum(a.wanted != b.wanted for a, b in zip(seconds, seconds[1:], strict=False))
    cells = [
        trace,
        name,
        f"{quantile_s(seconds, 0.5):.1f}",
        f"{quantile_s(seconds, 0.99):.0f}",
        f"{max(each.oldest_s for each in seconds):.0f}",
        f"{late:.1%}",
        f"{max(each.wanted for each in seconds)}",
        f"{hours:.1f}",
        f"{work / hours:.0%}",
        f"{changes}",
    ]
    return "| " + " | ".join(cells) + " |"


def polyline(values: Sequence[float], top: float, y: int, colour: str) -> str:
    """One curve: the greatest value of each pixel."""
    per_pixel = max(1, len(values) // _WIDTH)
    points = []
    for at in range(0, len(values), per_pixel):
        x = _MARGIN + at / len(values) * _WIDTH
        height = max(values[at : at + per_pixel]) / top * (_HEIGHT - 20)
        points.append(f"{x:.1f},{y + _HEIGHT - height:.1f}")
    return f'<polyline fill="none" stroke="{colour}" points="{" ".join(points)}"/>'


def panel(title: str, curves: Mapping[str, Sequence[float]], y: int) -> list[str]:
    """A pair of axes with a curve for each autoscaler."""
    top = max(1.0, *(max(values) for values in curves.values()))
    left, low = _MARGIN, y + _HEIGHT
    parts = [
        f'<text x="{left}" y="{y + 12}">{title}</text>',
        f'<path d="M{left} {y + 20} V{low} H{left + _WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{left - 6}" y="{y + 26}" text-anchor="end">{top:.0f}</text>',
        f'<text x="{left - 6}" y="{low}" text-anchor="end">0</text>',
    ]
    return parts + [polyline(each, top, y, _COLOURS[name]) for name, each in curves.items()]


def drawing(results: dict[str, dict[str, list[Second]]]) -> str:
    """Two panels a trace: queue age and replicas."""
    parts: list[str] = []
    y = 40
    for trace, by_name in results.items():
        ages = {name: [e.oldest_s for e in seconds] for name, seconds in by_name.items()}
        replicas = {name: [e.replicas for e in seconds] for name, seconds in by_name.items()}
        parts += panel(f"{trace}: age of the queue, s", ages, y)
        parts += panel(f"{trace}: replicas that are up", replicas, y + _HEIGHT + 30)
        y += 2 * (_HEIGHT + 40)
    legend = [
        f'<text x="{_MARGIN + 130 * at}" y="20" fill="{colour}">{name}</text>'
        for at, (name, colour) in enumerate(_COLOURS.items())
    ]
    size = f'width="{_WIDTH + 2 * _MARGIN}" height="{y}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, *legend, *parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start-secs", type=int, default=60, help="until a new replica serves")
    parser.add_argument("--trace", choices=TRACES, action="append", help="default: all of them")
    parser.add_argument("--min-replicas", type=int, default=1, help="0: the policy goes to zero")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path, help="draw it there")
    given = parser.parse_args()
    world = World(start_s=given.start_secs)
    settings = PolicySettings(min_replicas=given.min_replicas, max_replicas=_MOST)
    results: dict[str, dict[str, list[Second]]] = {}
    print(
        "| trace | autoscaler | wait p50, s | p99, s | oldest, s | waited over 2 s | most replicas "
        "| replica hours | utilisation | changes |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in given.trace or TRACES:
        arrivals = TRACES[name](random.Random(given.seed))
        results[name] = {
            "policy": simulate(arrivals, PolicyScaler(settings, world), world),
            "HPA on CPU": simulate(arrivals, CpuScaler(most=_MOST), world),
        }
        for scaler, seconds in results[name].items():
            print(row(name, scaler, seconds))
    if given.svg:
        given.svg.write_text(drawing(results), encoding="utf-8")


if __name__ == "__main__":
    main()
