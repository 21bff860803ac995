"""Residency: which models are in memory under a budget, and which make room for others.

What a load takes is what its configuration declares, or what was measured: by how much the memory
of this process and of its children grew while it was loaded and warmed up, loads being one at a
time under a budget, and no less than its versions' files have bytes. What models take later, as
they run, is not seen, nor is memory that the allocator had kept from a model before: it is given
back to the system first (`malloc_trim`), as far as its pages are free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.errors import AbortedError, CoreError, ResourceExhaustedError
from penstock.repository.catalog import ModelRecord, ServedVersion
from penstock.repository.loader import LoadPlan
from penstock.repository.memory import trim
from penstock.repository.own_parameters import is_pinned, memory_bytes

__all__ = ["Residency", "is_idle"]

_LOOK_S = 0.05
"""How often a load that waits for room looks whether a model has become idle."""
_PATIENCE_S = 30.0
"""How long it does at most, whatever the deadlines of those who wait."""

_log = logging.getLogger("penstock.repository")

Prepare = Callable[[], Awaitable[list[ServedVersion]]]


@dataclass(eq=False, slots=True)
class _Resident:
    """What one load takes, until the last of its versions is freed."""

    name: str
    size_bytes: int
    is_pinned: bool
    since_s: float
    since_unix_s: float
    versions: set[int] = field(default_factory=set)  # by identity


class Residency:
    """Admits loads within a budget.

    Threading: confined to the event loop.
    Ownership: borrows the records.
    """

    def __init__(
        self,
        budget_bytes: int,
        min_residency_s: float,
        models: Mapping[str, ModelRecord],
        evict: Callable[[str, str], Awaitable[None] | None],
        measure: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Holds nothing yet.

        Args:
            budget_bytes: 0 = none: everything is admitted, and nothing is counted.
            min_residency_s: a model that was loaded since is not unloaded for a load on demand.
            models: what is loaded and loading, by name.
            evict: unloads an idle model, for a reason; returns what to await until it is freed, or
                None where it cannot be now.
            measure: bytes of memory, blocking.
            clock: monotonic, s.
        """
        self._budget = budget_bytes
        self._min_residency_s = min_residency_s
        self._models = models
        self._evict = evict
        self._measure = measure
        self._clock = clock
        self._residents: list[_Resident] = []
        self._measured: dict[str, int] = {}
        self._loading = asyncio.Lock()
        self._waiting = 0
        self.evictions = 0

    @property
    def has_budget(self) -> bool:
        """Whether there is one."""
        return self._budget > 0

    def stats(self) -> dict[str, Any]:
        """`budget` and `resident` by model, in bytes, and `evictions`."""
        by_model: dict[str, int] = {}
        for each in self._residents:
            by_model[each.name] = by_model.get(each.name, 0) + each.size_bytes
        return {"budget": self._budget, "resident": by_model, "evictions": self.evictions}

    async def load(
        self, name: str, plan: LoadPlan, prepare: Prepare, is_wanted: Callable[[], bool] | None
    ) -> list[ServedVersion]:
        """Has `prepare` load versions once there is room for them.

        Args:
            name: of the model.
            plan: of its load.
            prepare: gives the versions, started.
            is_wanted: of a load on demand: whether anybody waits for it still; it then waits for
                models to become idle, and respects how long they have been loaded.

        Raises:
            ResourceExhaustedError: there is no room, with bytes.
            AbortedError: nobody waits any more.
            CoreError: as `prepare`.
        """
        if not self.has_budget:
            return await prepare()
        ends_s = self._clock() + _PATIENCE_S
        on_disk = await asyncio.to_thread(_on_disk, plan)
        while True:
            async with self._loading:
                needed = self._needed(name, plan, on_disk)
                refusal = await self._make_room(name, needed, is_wanted is not None)
                if refusal is None:
                    return await self._load(name, plan, prepare, on_disk)
            self._check_fits(name, needed)
            if is_wanted is None or self._clock() >= ends_s:
                raise refusal
            if not is_wanted():
                raise AbortedError("nobody waits for it any more")
            self._waiting += 1
            try:  # the more look, the less often each: a look goes through all residents
                await _pause(_LOOK_S * self._waiting)
            finally:
                self._waiting -= 1

    def freed(self, version: ServedVersion) -> None:
        """A version that `load` gave is no more."""
        for each in list(self._residents):
            each.versions.discard(id(version))
            if not each.versions:
                self._residents.remove(each)

    def forget(self, name: str) -> None:
        """What was measured of a model counts no more: its files have changed."""
        self._measured.pop(name, None)

    async def _load(
        self, name: str, plan: LoadPlan, prepare: Prepare, on_disk: int
    ) -> list[ServedVersion]:
        before = await asyncio.to_thread(_trimmed, self._measure)
        versions = await prepare()
        size = memory_bytes(plan.config)
        if size is None:
            size = max(await asyncio.to_thread(self._measure) - before, on_disk)
        self._measured[name] = size
        now_s, pinned = self._clock(), is_pinned(plan.config)
        resident = _Resident(name, size, pinned, now_s, time.time())
        resident.versions = {id(version) for version in versions}
        self._residents.append(resident)
        fits = size <= self._budget - self._pinned(name)  # else nobody has to go for it
        refusal = await self._make_room(name, 0, False) if fits else self._refusal(name, size)
        if refusal is not None:
            await asyncio.gather(
                *(asyncio.to_thread(each.handle.close, _PATIENCE_S) for each in versions)
            )
            self._residents.remove(resident)
            raise self._refusal(name, size)
        _log.info("model '%s' takes %d bytes of the memory budget", name, size)
        return versions

    async def _make_room(self, name: str, needed: int, is_patient: bool) -> CoreError | None:
        """Unloads idle models, least recently used first, until so many bytes are free."""
        if needed > self._budget - self._pinned(name):
            return self._refusal(name, needed)
        while self._total() + needed > self._budget:
            for victim in sorted(self._evictable(name, is_patient), key=self._used_unix_s):
                freed = self._evict(victim.name, f"'{name}' is loaded")
                if freed is not None:
                    self.evictions += 1
                    await freed
                    break
            else:
                return self._refusal(name, needed)
        return None

    def _check_fits(self, name: str, needed: int) -> None:
        if needed > self._budget - self._pinned(name):
            raise self._refusal(name, needed)

    def _refusal(self, name: str, needed: int) -> CoreError:
        held = self._total()
        return ResourceExhaustedError(
            f"model '{name}' takes {needed} bytes, and the memory budget is {self._budget} bytes: "
            f"{held} are held, {self._pinned(name)} of them by pinned models and the rest by models"
            " that are in use or were loaded a moment ago"
        )

    def _evictable(self, name: str, is_patient: bool) -> list[_Resident]:
        latest_s = self._clock() - (self._min_residency_s if is_patient else 0.0)
        return [
            each
            for each in self._residents
            if each.name != name and not each.is_pinned and each.since_s <= latest_s
        ]

    def _used_unix_s(self, resident: _Resident) -> float:
        record = self._models.get(resident.name, ModelRecord())
        stats = [served.handle.stats() for served in record.serving.values()]
        last_s = [float(each.get("last_inference_ms", 0)) / 1e3 for each in stats]
        return max([resident.since_unix_s, *last_s])

    def _total(self) -> int:
        return sum(each.size_bytes for each in self._residents)

    def _pinned(self, name: str) -> int:
        return sum(e.size_bytes for e in self._residents if e.is_pinned and e.name != name)

    def _needed(self, name: str, plan: LoadPlan, on_disk: int) -> int:
        declared = memory_bytes(plan.config)
        return self._measured.get(name, on_disk) if declared is None else declared


def is_idle(versions: Sequence[ServedVersion]) -> bool:
    """Whether no request is queued or in flight, background requests among them."""
    for served in versions:
        stats = served.handle.stats()
        for part in (stats, stats.get("background", {})):
            if part.get("pending", 0) or part.get("running", 0):
                return False
    return True


def _trimmed(measure: Callable[[], int]) -> int:
    trim()
    return measure()


def _on_disk(plan: LoadPlan) -> int:
    folders = [plan.model.path / str(version) for version in plan.versions]
    return sum(_size(path) for folder in folders for path in folder.rglob("*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


async def _pause(seconds: float) -> None:
    """Waits for what nobody tells of: a model that has become idle, a caller that has left."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        return
