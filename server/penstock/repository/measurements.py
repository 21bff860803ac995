"""Measurements: what models took when they were last loaded, and how far that is believed.

Memory is measured of a whole process and of its children, so whatever else they do at that time is
in it: a measurement may be too high. One that keeps a model out is therefore not the last word: the
model is tried again after a while, alone, and the new measurement takes the old one's place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.repository.loader import LoadPlan

__all__ = ["Measurements", "size_on_disk"]

_FIRST_DOUBT_S = 60.0
"""How long a measurement keeps a model out at first; twice as long each time it is confirmed."""
_LAST_DOUBT_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Measurement:
    size_bytes: int
    refusals: int = 0  # one after the other: so often it was measured, and did not fit
    doubt_s: float = 0.0  # when it is tried again, monotonic


class Measurements:
    """By model, the last one.

    Threading: confined to the event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: monotonic, s."""
        self._clock = clock
        self._last: dict[str, _Measurement] = {}

    def needed(self, name: str, on_disk: int, most: int) -> int:
        """How many bytes a load is taken to need.

        Args:
            name: of the model.
            on_disk: bytes of its files, which it takes at least.
            most: bytes that it can have, with all others gone.

        Returns:
            What was measured last; `most`, where that was more and it is time to try again;
            `on_disk`, where nothing was.
        """
        last = self._last.get(name)
        if last is None:
            return on_disk
        is_doubted = last.size_bytes > most >= on_disk and self._clock() >= last.doubt_s
        return most if is_doubted else last.size_bytes

    def keep(self, name: str, size_bytes: int) -> None:
        """The model was loaded, and took so much."""
        self._last[name] = _Measurement(size_bytes)

    def refuse(self, name: str, size_bytes: int) -> float:
        """The model was loaded, took so much, and had to go again; seconds until another try."""
        last = self._last.get(name)
        before = last.refusals if last is not None else 0
        rest_s = min(_FIRST_DOUBT_S * (1 << min(before, 10)), _LAST_DOUBT_S)
        self._last[name] = _Measurement(size_bytes, before + 1, self._clock() + rest_s)
        return rest_s

    def forget(self, name: str) -> None:
        """It counts no more: the model's files have changed."""
        self._last.pop(name, None)


def size_on_disk(plan: LoadPlan) -> int:
    """Bytes of the files of the versions that a load brings; blocking."""
    folders = [plan.model.path / str(version) for version in plan.versions]
    return sum(_size(path) for folder in folders for path in folder.rglob("*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
