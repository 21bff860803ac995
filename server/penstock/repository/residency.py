"""Residency: which models are in memory under a budget, and which make room for others.

What a load takes is what its configuration declares, or what was measured: by how much the memory
of this process and of its children grew while it was loaded and warmed up, and no less than its
versions' files have bytes. Loads, and instances that are added, are one at a time under a budget,
and what models that go meanwhile leave free is added, so that the growth is one model's. What
models take later, as they run, is not seen, nor is memory that the allocator had kept from a model
before: it is given back to the system first (`malloc_trim`), as far as its pages are free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from penstock.errors import AbortedError, CoreError, ResourceExhaustedError, UnavailableError
from penstock.repository.catalog import ModelRecord, ServedVersion
from penstock.repository.loader import LoadPlan
from penstock.repository.measurements import Measurements, size_on_disk
from penstock.repository.memory import trimmed
from penstock.repository.own_parameters import is_pinned, memory_bytes
from penstock.repository.residents import Resident, Residents, Wish
from penstock.threads import is_set_within

__all__ = ["LoadGivenUpError", "LoadOutrunError", "Residency", "ResidentModels"]

_LOOK_S = 0.05
"""How often a load that waits for room looks whether a model has become idle."""
_PATIENCE_S = 30.0
"""How long it does at most, whatever the deadlines of those who wait."""

_log = logging.getLogger("penstock.repository")

Prepare = Callable[[], Awaitable[list[ServedVersion]]]


class LoadGivenUpError(Exception):
    """Nobody waits for the model any more. Nothing has failed."""


class LoadOutrunError(LoadGivenUpError):
    """Those who wait do so for what was wished of the model since."""


class ResidentModels(Protocol):
    """What of the models residency needs."""

    @property
    def is_closing(self) -> bool:
        """Whether the server stops, and no load is begun."""

    def record(self, name: str) -> ModelRecord | None:
        """What is known of a model."""

    def can_evict(self, name: str) -> bool:
        """Whether it serves, has no request, and no load of it does more than wait for room."""

    def is_outrun(self, name: str) -> bool:
        """Whether somebody waits to load or unload it for the load that is under way to end."""

    def evict(self, name: str, why: str) -> Awaitable[None] | None:
        """Unloads an idle model; what to await until it is freed, or None: it cannot be now."""

    async def discard(self, name: str, versions: Sequence[ServedVersion]) -> None:
        """Frees versions that have never served, of which each is told when it is gone."""


class Residency:
    """Admits loads within a budget.

    Threading: confined to the event loop.
    Ownership: borrows the models.
    """

    def __init__(
        self,
        budget_bytes: int,
        min_residency_s: float,
        models: ResidentModels,
        measure: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Holds nothing yet.

        Args:
            budget_bytes: 0 = none: everything is admitted, and nothing is counted.
            min_residency_s: a model that was loaded since is not unloaded for a load on demand.
            models: what is loaded and loading.
            measure: bytes of memory, blocking.
            clock: monotonic, s.
        """
        self._budget = budget_bytes
        self._min_residency_s = min_residency_s
        self._models = models
        self._measure = measure
        self._clock = clock
        self._residents = Residents()
        self._measurements = Measurements(clock)
        self._strays: list[ServedVersion] = []  # of a load that failed, and not freed yet
        self._loading = asyncio.Lock()
        self._waiting: set[str] = set()  # models whose loads wait for room
        self._wishes: dict[str, Wish] = {}  # of loads that are under way
        self.evictions = 0
        self.loads = 0  # done so far: one that is done later has no smaller number

    @property
    def has_budget(self) -> bool:
        """Whether there is one."""
        return self._budget > 0

    def waits_for_room(self, name: str) -> bool:
        """Whether a load of the model does, and no more than that."""
        return name in self._waiting

    def stats(self) -> dict[str, Any]:
        """`budget` and `resident` by model, in bytes, and `evictions`."""
        resident = self._residents.by_model()
        return {"budget": self._budget, "resident": resident, "evictions": self.evictions}

    async def load(
        self,
        name: str,
        plan: LoadPlan,
        prepare: Prepare,
        is_wanted: Callable[[], bool] | None,
        wish: Wish,
    ) -> list[ServedVersion]:
        """Has `prepare` load versions once there is room for them.

        Where models that are busy would make room enough it waits for them to become idle, for a
        while, in which the model may itself go for others, and which ends with another wish.

        Args:
            name: of the model, of which this is the only load.
            plan: of its load.
            prepare: gives the versions, started.
            is_wanted: of a load on demand: whether anybody waits for it still; it then respects
                how long models have been loaded.
            wish: of any other: whether what others got meanwhile may go.

        Raises:
            ResourceExhaustedError: there is no room, with bytes.
            LoadGivenUpError: nobody waits any more, or they do for what was wished since.
            AbortedError: so it is, and the load was itself a wish.
            UnavailableError: the server stops, and it has waited for room.
            CoreError: as `prepare`.
        """
        if not self.has_budget:
            return await prepare()
        ends_s = self._clock() + _PATIENCE_S
        if is_wanted is None:
            self._wishes[name] = wish
        try:
            on_disk = await asyncio.to_thread(size_on_disk, plan)
            while True:
                async with self._loading:
                    if is_wanted is not None and not is_wanted():
                        raise LoadGivenUpError(name)
                    needed = self._needed(name, plan, on_disk)
                    refusal = await self._make_room(name, needed, is_wanted is not None)
                    if refusal is None:
                        self._waiting.discard(name)
                        return await self._load(name, plan, prepare, on_disk)
                if needed > self._most_beside(name) or self._clock() >= ends_s:
                    if not self._insist(name):
                        raise refusal
                    continue
                self._check_may_wait(name, is_wish=is_wanted is None)
                self._waiting.add(name)
                # The more look, the less often each: a look goes through all residents.
                await is_set_within(asyncio.Event(), _LOOK_S * len(self._waiting))
        finally:
            self._waiting.discard(name)
            self._wishes.pop(name, None)

    def _insist(self, name: str) -> bool:
        """Has what others got meanwhile go, where there is no other way; False: it may not."""
        wish = self._wishes.get(name)
        if wish is None or wish.is_firm:
            return False
        self._wishes[name] = Wish(self.loads, is_firm=True)
        return True

    def _check_may_wait(self, name: str, *, is_wish: bool) -> None:
        if self._models.is_closing:
            raise UnavailableError(f"the server is shutting down, model '{name}' is not loaded")
        if self._models.is_outrun(name):
            if not is_wish:
                raise LoadOutrunError(name)
            raise AbortedError("another load or an unload was asked for while it waited for room")

    async def add_instance(
        self,
        version: ServedVersion,
        add: Callable[[], Awaitable[None]],
        remove: Callable[[], Awaitable[bool]],
    ) -> None:
        """Has `add` make one more instance of a version that serves, as far as there is room.

        Raises:
            ResourceExhaustedError: there is none, with bytes; `remove` has taken it out again.
            CoreError: as `add`.
        """
        resident = self._residents.of(version)
        if resident is None:  # there is no budget, or it is unloaded, as `add` will find
            return await add()
        async with self._loading:
            refusal = await self._make_room(resident.name, resident.instance_bytes, False)
            if refusal is not None:
                raise refusal
            before = await self._level()
            await add()
            growth = await self._level() - before
            resident.add_instance(0 if resident.is_declared else max(growth, 0))
            refusal = await self._make_room(resident.name, 0, False)
            if refusal is not None:
                await self.remove_instance(version, remove)
                raise refusal

    async def remove_instance(
        self, version: ServedVersion, remove: Callable[[], Awaitable[bool]]
    ) -> None:
        """Has `remove` take out the version's latest instance, and say whether it is freed."""
        is_freed = await remove()
        self._residents.remove_instance(version, is_freed=is_freed)

    def unloading(self, versions: Sequence[ServedVersion]) -> None:
        """These serve no more, and are held until they are `freed`."""
        self._residents.unpin(versions)

    def left_behind(self, version: ServedVersion) -> None:
        """A version was closed and is not freed: it has work that does not end."""
        if self.has_budget and self._residents.of(version) is None:
            self._strays.append(version)

    def freed(self, version: ServedVersion) -> None:
        """A version is no more."""
        self._strays = [each for each in self._strays if each is not version]
        self._residents.free(version)

    def forget(self, name: str) -> None:
        """What was measured of a model counts no more: its files have changed."""
        self._measurements.forget(name)

    async def _load(
        self, name: str, plan: LoadPlan, prepare: Prepare, on_disk: int
    ) -> list[ServedVersion]:
        self._strays.clear()  # of a load before, and then somebody's
        before = await self._level()
        try:
            versions = await prepare()
        except Exception:
            if self._strays:  # closed, but not freed yet
                size = _taken(plan, await self._level() - before, on_disk)
                self._settle(name, plan, size, self._strays).is_pinned = False
            raise
        size = _taken(plan, await self._level() - before, on_disk)
        self._settle(name, plan, size, versions)
        if refusal := await self._refuse_too_large(name, plan, size):
            await self._models.discard(name, versions)
            raise refusal
        _log.info("model '%s' takes %d bytes of the memory budget", name, size)
        return versions

    def _settle(
        self, name: str, plan: LoadPlan, size: int, versions: Sequence[ServedVersion]
    ) -> Resident:
        resident = Resident(
            name,
            size,
            is_pinned(plan.config),
            memory_bytes(plan.config) is not None,
            self._clock(),
            time.time(),
            list(versions),
            self.loads if name in self._wishes else -1,
        )
        self.loads += 1
        self._residents.all.append(resident)
        return resident

    async def _refuse_too_large(self, name: str, plan: LoadPlan, size: int) -> CoreError | None:
        """Why a model that is loaded has to go again; None: others have made room where needed."""
        is_measured = memory_bytes(plan.config) is None
        if size > self._most(name):
            if is_measured:
                rest_s = self._measurements.refuse(name, size)
                text = "model '%s' was measured to take %d bytes, too many: tried again after %g s"
                _log.warning(text, name, size, rest_s, extra={"model": name})
            return self._refusal(name, size)
        if is_measured:
            self._measurements.keep(name, size)
        while (refusal := await self._make_room(name, 0, False)) is not None:
            if not self._insist(name):
                return self._refusal(name, size)
        return refusal

    async def _level(self) -> int:
        """Bytes in use, and those that were left free meanwhile: what it rises by is one load's."""
        used = await asyncio.to_thread(trimmed, self._measure)
        return used + self._residents.freed_bytes

    async def _make_room(self, name: str, needed: int, is_patient: bool) -> CoreError | None:
        """Unloads idle models, least recently used first, until so many bytes are free.

        None goes where those that can do not suffice.
        """
        if needed > self._most(name):
            return self._refusal(name, needed)
        while self._short(needed) > 0:
            victims = self._evictable(name, is_patient)
            if sum(each.size_bytes for each in victims) < self._short(needed):
                return self._refusal(name, needed)
            leaving = self._evict(sorted(victims, key=self._used_unix_s), name, needed)
            if not leaving:
                return self._refusal(name, needed)
            await asyncio.gather(*leaving)
        return None

    def _evict(self, victims: Sequence[Resident], name: str, needed: int) -> list[Awaitable[None]]:
        """Begins to unload models, the first first, until so many bytes will be free.

        Returns:
            What to await for each.
        """
        leaving = []
        short = self._short(needed)
        for victim in victims:
            if short <= 0:
                break
            freed = self._models.evict(victim.name, f"'{name}' is loaded")
            if freed is not None:
                self.evictions += 1
                short -= victim.size_bytes
                leaving.append(freed)
        return leaving

    def _short(self, needed: int) -> int:
        """Bytes that have to be freed before so many are."""
        return self._residents.total() + needed - self._budget

    def _most(self, name: str) -> int:
        """What a model can have with all others gone that may go."""
        return self._budget - self._residents.pinned(name)

    def _most_beside(self, name: str) -> int:
        """The same while what serves of the model goes on, and what came with it."""
        stay = sum(each.size_bytes for each in self._residents.all if self._stays(name, each))
        return self._most(name) - stay

    def _stays(self, name: str, resident: Resident) -> bool:
        """Whether a load of the model leaves it: its own, or unpinned that others got meanwhile."""
        wish = self._wishes.get(name)
        is_wished = wish is not None and resident.number >= wish.since and not resident.is_pinned
        return (resident.name == name or is_wished) and self._serves(resident)

    def _refusal(self, name: str, needed: int) -> CoreError:
        return ResourceExhaustedError(
            f"model '{name}' takes {needed} bytes, and the memory budget is {self._budget} bytes: "
            f"{self._residents.total()} are held, {self._residents.pinned(name)} of them by pinned "
            "models and the rest by models that are in use or were loaded a moment ago"
        )

    def _evictable(self, name: str, is_patient: bool) -> list[Resident]:
        latest_s = self._clock() - (self._min_residency_s if is_patient else 0.0)
        return [
            each
            for each in self._residents.all
            if not each.is_pinned
            and each.since_s <= latest_s
            and self._serves(each)
            and not self._stays(name, each)
            and self._models.can_evict(each.name)
        ]

    def _serves(self, resident: Resident) -> bool:
        """Whether unloading its model frees it: it may have gone before, and be held still."""
        record = self._models.record(resident.name)
        return record is not None and any(resident.has(v) for v in record.serving.values())

    def _used_unix_s(self, resident: Resident) -> float:
        record = self._models.record(resident.name) or ModelRecord()
        stats = [served.handle.stats() for served in record.serving.values()]
        last_s = [float(each.get("last_inference_ms", 0)) / 1e3 for each in stats]
        return max([resident.since_unix_s, *last_s])

    def _needed(self, name: str, plan: LoadPlan, on_disk: int) -> int:
        declared = memory_bytes(plan.config)
        if declared is not None:
            return declared
        return self._measurements.needed(name, on_disk, self._most(name))


def _taken(plan: LoadPlan, growth: int, on_disk: int) -> int:
    """What a load takes: as declared, or as measured."""
    declared = memory_bytes(plan.config)
    return max(growth, on_disk) if declared is None else declared
