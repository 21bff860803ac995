"""Which processors the server has, and which the harness, where they share a machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def parse_cpus(text: str) -> frozenset[int]:
    """Processors such as "0-2,5".

    Raises:
        ValueError: it is no such list, or leaves the harness none.
    """
    allowed = os.sched_getaffinity(0)
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not all(each.isdecimal() for each in (first, last or first)):
            raise ValueError(f"expected processors such as 0-2,5, got {text!r}")
        chosen = range(int(first), int(last or first) + 1)
        if not chosen or not {chosen[0], chosen[-1]} <= allowed:
            raise ValueError(f"expected some of {shown(allowed)}, got {text!r}")
        found.update(chosen)
    if not found < allowed:
        raise ValueError(f"expected some of {shown(allowed)}, but not all, got {text!r}")
    return frozenset(found)


def shown(cpus: Iterable[int]) -> str:
    """Their numbers."""
    return ", ".join(map(str, sorted(cpus)))


@contextmanager
def kept_off(cpus: frozenset[int]) -> Iterator[list[str]]:
    """Keeps this thread, and those that it starts, off processors; all may be had again after.

    Yields what a command begins with to run on them alone; nothing where there are none.
    """
    if not cpus:
        yield []
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - cpus)
    try:
        yield ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus)))]
    finally:
        os.sched_setaffinity(0, before)
