"""Demand: models that are loaded when a request asks for them, under a memory budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.errors import (
    AbortedError,
    Code,
    CoreError,
    InternalError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    core_error,
)
from penstock.repository.catalog import ModelRecord
from penstock.repository.engine import ModelEngine
from penstock.repository.own_parameters import is_pinned
from penstock.repository.residency import LoadGivenUpError, LoadOutrunError, Residency

if TYPE_CHECKING:
    from penstock.repository.serving_models import ServingModels

__all__ = ["Demand"]

_KEPT_FAILURE_S = 1.0
"""For so long a load that failed is not tried again: those who ask meanwhile get its failure."""

_MOST_ASKERS = 256
"""Of one model, that wait for it without a request."""

_log = logging.getLogger("penstock.repository")

Reload = Callable[..., Awaitable[bool]]
"""Loads a model; False: there was no need."""


class Demand:
    """Knows which models may be loaded on demand, and how.

    Without a budget it does nothing.

    Threading: confined to the event loop.
    Ownership: borrows the manager and what it is made of.
    """

    def __init__(
        self,
        manager: ServingModels,
        residency: Residency,
        engine: ModelEngine,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: monotonic, s."""
        self._manager = manager
        self._residency = residency
        self._engine = engine
        self._clock = clock
        self._reloads: dict[str, Reload] = {}
        self._failures: dict[str, tuple[float, CoreError]] = {}
        # Who waits for a model without a request, and for which version.
        self._askers: dict[str, dict[asyncio.Future[None], int | None]] = {}
        self.outcomes = {"done": 0, "failed": 0}

    def stats(self) -> Mapping[str, Any] | None:
        """What the residency counts, and `loads` on demand by outcome; None without a budget."""
        if not self._residency.has_budget:
            return None
        return {**self._residency.stats(), "loads": dict(self.outcomes)}

    async def start(self, found: Iterable[str], load_models: Iterable[str]) -> list[str]:
        """Every model that was found may be asked for. Returns those to load at once.

        These are the pinned ones, and those named to be loaded.
        """
        self.know(*found)
        pinned = [name for name in found if await asyncio.to_thread(self._is_pinned, name)]
        named = [name for name in load_models if name != "*"]
        return list(dict.fromkeys([*pinned, *named]))

    def know(self, *names: str) -> None:
        """These models are in a repository; one that was unloaded by wish stays so."""
        if not self._residency.has_budget:
            return
        for name in names:
            if self._manager.record(name) is None:
                self._manager.publish(name, ModelRecord(on_demand=True))

    def loaded(self, name: str, record: ModelRecord, reload: Reload) -> None:
        """A load succeeded; `reload` does it again."""
        self._failures.pop(name, None)
        record.on_demand = self._residency.has_budget
        self.remember(name, reload)

    def remember(self, name: str, reload: Reload) -> None:
        """What loads the model as it is loaded now."""
        if self._residency.has_budget:
            self._reloads[name] = reload

    def forget(self, name: str) -> None:
        """What is known of its loads counts no more: its files have changed."""
        self._failures.pop(name, None)
        self._reloads.pop(name, None)
        self._residency.forget(name)

    def unloaded(self, name: str) -> None:
        """Somebody wished so: only a load brings it back."""
        self._failures.pop(name, None)
        self._reloads.pop(name, None)
        record = self._manager.record(name)
        if record is not None:
            record.on_demand = False

    async def load(self, name: str) -> None:
        """Loads a model that is waited for, or ends the wait. Does not raise."""
        failure: CoreError | None = None
        try:
            if await self._load(name):
                self.outcomes["done"] += 1
        except LoadGivenUpError:  # whoever has come since is no part of it
            self._engine.give_up_load(name)
            return
        except Exception as error:
            failure = InternalError(f"model '{name}' could not be loaded on demand")
            if isinstance(error, CoreError):
                failure = error
            else:
                _log.exception("%s", failure.message)
            self.outcomes["failed"] += 1
            self._engine.end_wait(name, failure.code, failure.message)
        for asker in self._askers.get(name, {}):
            _answer(asker, failure)

    async def bring(self, name: str, version: int | None) -> None:
        """Loads a model for somebody who has to know it before they can ask it anything.

        Nothing where it serves, or where no request would load it.

        Raises:
            NotFoundError: no load has the version.
            ResourceExhaustedError: too many wait for it already; or as its load.
            CoreError: as its load.
        """
        if self._manager.record(name) is None or not self._manager.awaits(name):
            return
        askers = self._askers.setdefault(name, {})
        if len(askers) >= _MOST_ASKERS:
            text = f"model '{name}' is not loaded yet, and {len(askers)} wait for it already"
            raise ResourceExhaustedError(text)
        is_first = all(each.done() for each in askers)
        asker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        askers[asker] = version
        if is_first:
            self._manager.on_demand(name)
        try:
            await asker
        finally:
            del askers[asker]
            if not askers:
                self._askers.pop(name, None)

    def close(self) -> None:
        """Nothing is loaded any more: nobody waits on."""
        text = "the server is shutting down"
        for name in self._manager.names():
            self._engine.end_wait(name, Code.UNAVAILABLE, text)
        for askers in self._askers.values():
            for asker in askers:
                _answer(asker, UnavailableError(text))

    def set_loadable(self, name: str, versions: Collection[int]) -> None:
        """A load would bring these versions: who waits for another one is told that it is not."""
        self._engine.set_loadable(name, list(versions))
        for asker, version in self._askers.get(name, {}).items():
            if version is not None and version not in versions:
                text = f"Request for unknown model: '{name}' version {version} is not found"
                _answer(asker, NotFoundError(text))

    def _is_wanted(self, name: str) -> bool:
        if self._engine.waiting(name) > 0:
            return True
        return any(not asker.done() for asker in self._askers.get(name, ()))

    async def _load(self, name: str) -> bool:
        if self._manager.is_closing:
            raise UnavailableError(f"the server is shutting down, model '{name}' is not loaded")
        failed_s, failure = self._failures.get(name, (0.0, None))
        if failure is not None and self._clock() - failed_s < _KEPT_FAILURE_S:
            raise failure
        _log.info("model '%s' is asked for, and loaded on demand", name)
        try:
            reload = self._reloads.get(name) or self._manager.load_again(name)
            return await reload(is_wanted=lambda: self._is_wanted(name))
        except LoadOutrunError:
            return await self._load(name)  # behind what was wished, where it is still needed
        except AbortedError:  # nothing is wrong with the model
            raise
        except CoreError as error:
            self._failures[name] = (self._clock(), core_error(error.code, error.message))
            raise

    def _is_pinned(self, name: str) -> bool:
        try:
            return is_pinned(self._manager.plan(name).config)
        except Exception:  # it is told when it is loaded
            return False


def _answer(asker: asyncio.Future[None], failure: CoreError | None) -> None:
    """Ends a wait; one whose caller has left is over."""
    if asker.done():
        return
    if failure is None:
        asker.set_result(None)
    else:
        asker.set_exception(core_error(failure.code, failure.message))
