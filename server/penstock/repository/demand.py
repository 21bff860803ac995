"""Demand: models that are loaded when a request asks for them, under a memory budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.errors import AbortedError, CoreError, InternalError, UnavailableError, core_error
from penstock.repository.catalog import ModelRecord
from penstock.repository.engine import ModelEngine
from penstock.repository.own_parameters import is_pinned
from penstock.repository.residency import Residency

if TYPE_CHECKING:
    from penstock.repository.serving_models import ServingModels

__all__ = ["Demand"]

_KEPT_FAILURE_S = 1.0
"""For so long a load that failed is not tried again: those who ask meanwhile get its failure."""

_log = logging.getLogger("penstock.repository")

Reload = Callable[..., Awaitable[None]]


class Demand:
    """Knows which models may be loaded on demand, and how.

    Without a budget it does nothing.

    Threading: confined to the event loop.
    Ownership: borrows the manager and what it is made of.
    """

    def __init__(self, manager: ServingModels, residency: Residency, engine: ModelEngine) -> None:
        self._manager = manager
        self._residency = residency
        self._engine = engine
        self._reloads: dict[str, Reload] = {}
        self._failures: dict[str, tuple[float, CoreError]] = {}
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
        self._reloads.pop(name, None)
        record = self._manager.record(name)
        if record is not None:
            record.on_demand = False

    async def load(self, name: str) -> None:
        """Loads a model that requests wait for, or ends their wait. Does not raise."""
        try:
            await self._load(name)
            self.outcomes["done"] += 1
        except Exception as error:
            failure: CoreError = InternalError(f"model '{name}' could not be loaded on demand")
            if isinstance(error, CoreError):
                failure = error
            else:
                _log.exception("%s", failure.message)
            if not isinstance(error, AbortedError):  # nobody waits any more
                self.outcomes["failed"] += 1
            self._engine.end_wait(name, failure.code, failure.message)

    async def _load(self, name: str) -> None:
        if self._manager.is_closing:
            raise UnavailableError(f"the server is shutting down, model '{name}' is not loaded")
        failed_s, failure = self._failures.get(name, (0.0, None))
        if failure is not None and time.monotonic() - failed_s < _KEPT_FAILURE_S:
            raise failure
        _log.info("model '%s' is loaded on demand", name)
        try:
            reload = self._reloads.get(name) or self._manager.load_again(name)
            await reload(is_wanted=lambda: self._engine.waiting(name) > 0)
        except AbortedError:
            raise
        except CoreError as error:
            self._failures[name] = (
                time.monotonic(),
                core_error(error.code, error.message),
            )
            raise

    def _is_pinned(self, name: str) -> bool:
        try:
            return is_pinned(self._manager.plan(name).config)
        except Exception:  # it is told when it is loaded
            return False
