"""ScalableVersion: a version whose instances may be added and removed while it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.repository.catalog import ServedVersion
from penstock.repository.own_parameters import InstanceBounds
from penstock.repository.residency import Residency
from penstock.threads import Threads

__all__ = ["ScalableVersion"]

_LEAVING_S = 30.0
"""How long one is waited for that leaves; it is freed with the next one else."""


class ScalableVersion:
    """What a scaler sees of a version. Calls raise CoreError once it serves no more.

    Under a memory budget instances take their part of it.

    Threading: confined to the event loop. Ownership: borrows the residency and the threads.
    """

    def __init__(
        self,
        model: str,
        served: ServedVersion,
        bounds: InstanceBounds,
        residency: Residency,
        loads: Threads,
        drains: Threads,
    ) -> None:
        self.model = model
        self.version = served.version
        self.key: object = served.handle
        self.bounds = (bounds.least, bounds.most)
        self._served = served
        self._residency = residency
        self._loads = loads
        self._drains = drains

    def stats(self) -> Mapping[str, Any]:
        """Counters; empty once it serves no more."""
        return self._served.handle.stats()

    async def add(self) -> None:
        """One more instance, warm; ResourceExhaustedError where the memory budget has no room."""
        await self._residency.add_instance(self._served, self._add, self._remove)

    async def remove(self) -> None:
        """One instance less, which ends what it has."""
        await self._residency.remove_instance(self._served, self._remove)

    async def _add(self) -> None:
        await self._loads.run(self._served.handle.add_instance, self._served.warm_ups)

    async def _remove(self) -> bool:
        return await self._drains.run(self._served.handle.remove_instance, _LEAVING_S)
