"""ModelManager: which models are served, and the loads and unloads that change it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from penstock.codec import IndexEntry
from penstock.errors import (
    CoreError,
    InternalError,
    NotFoundError,
    StartupError,
    UnavailableError,
    UnimplementedError,
)
from penstock.repository.catalog import ModelRecord
from penstock.repository.failures import files_refusal
from penstock.repository.layout import list_models
from penstock.repository.residents import Wish
from penstock.repository.serving_models import ServingModels

__all__ = ["ModelManager"]

_log = logging.getLogger("penstock.repository")


class ModelManager(ServingModels):
    """Serves the models of the repositories on an engine, as its clients and its start ask for.

    Threading, Ownership, Lifecycle: as ServingModels.
    """

    async def start(self) -> None:
        """Loads what is to be served from the start; returns when that has succeeded or failed.

        Raises:
            StartupError: a repository cannot be read, or, with exit_on_error, a model did not load.
        """
        found = await asyncio.to_thread(list_models, self._settings.paths)
        if not found:
            places = ", ".join(f"'{path}'" for path in self._settings.paths)
            _log.warning("no model found in %s", places)
        names = self._initial_models(found)
        if self._residency.has_budget:
            names = await self.demand.start(found, self._settings.load_models)
        results = await asyncio.gather(
            *(self._track(self._load(name, None)) for name in names), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, CoreError):
                raise failure
        if failures and self._settings.exit_on_error:
            raise StartupError("; ".join(str(failure) for failure in failures))
        self._is_started = True

    def _initial_models(self, found: Iterable[str]) -> list[str]:
        if self._settings.control_mode != "explicit" or "*" in self._settings.load_models:
            return list(found)
        return list(dict.fromkeys(self._settings.load_models))

    async def load(
        self,
        name: str,
        *,
        config_json: str | None = None,
        files: Sequence[str] = (),
        repository_name: str = "",
    ) -> None:
        """Loads or reloads a model; returns when it serves.

        A caller that goes away does not stop the load.

        Args:
            name: of the model.
            config_json: a configuration that replaces the file's for this load.
            files: names of file contents sent along; none is supported.
            repository_name: only empty is supported.

        Raises:
            UnavailableError: the control mode is not explicit, or the server is shutting down.
            UnimplementedError: a repository name or file contents were given.
            InternalError: a file's name is one that no file can have.
            CoreError: the model did not load; the message says why.
        """
        self._check_control(repository_name)
        if files:
            raise files_refusal(name, files)
        wish = Wish(self._residency.loads, is_firm=True)
        load = self._load(name, config_json, wish=wish)
        await asyncio.shield(self._track(load))

    async def unload(
        self, name: str, *, unload_dependents: bool = False, repository_name: str = ""
    ) -> None:
        """Stops serving a model; the requests it has accepted are finished in the background.

        A model of the repository that is not loaded is left as it is.

        Args:
            name: of the model.
            unload_dependents: accepted; no model has dependents.
            repository_name: only empty is supported.

        Raises:
            UnavailableError: the control mode is not explicit, or the server is shutting down.
            UnimplementedError: a repository name was given.
            NotFoundError: no such model is loaded or in a repository.
        """
        self._check_control(repository_name)
        del unload_dependents
        await asyncio.shield(self._track(self._unload(name)))
        await self._forget_gone()

    async def follow(self, name: str, is_current: Callable[[], bool]) -> None:
        """Loads or reloads a model whose directory has changed.

        Args:
            name: of the model.
            is_current: asked in a thread once the versions are ready; if it says no, none serves.

        Raises:
            AbortedError: is_current said no.
            CoreError: as `load`.
        """
        self._check_open()
        async with self._changing(name):
            self.demand.forget(name)  # here: a load under way has read what was there before
        if self._residency.has_budget and not self._serves(name):
            self.demand.know(name)
            self._models[name].on_demand = True  # it may have been gone, or broken
            self._publish(name, self._models[name])
            return
        await asyncio.shield(self._track(self._load(name, None, is_current)))

    async def refuse(self, name: str, reason: str) -> None:
        """Has the index say why a model cannot be loaded; what is served of it goes on."""
        async with self._changing(name, is_wish=False):
            record = self._models.setdefault(name, ModelRecord())
            record.fail_load(f"failed to load '{name}', {reason}")
            self._publish(name, record)
            _log.error("failed to load '%s', %s", name, reason, extra={"model": name})

    async def withdraw(self, name: str) -> None:
        """Stops serving a model whose directory is gone; requests it has accepted are finished."""
        if name in self._models and not self._is_closing:
            await asyncio.shield(self._track(self._unload(name)))
            await self._forget_gone()

    async def index(
        self, *, ready_only: bool = False, repository_name: str = ""
    ) -> list[IndexEntry]:
        """Every model of the repositories and those loaded before, by name and version.

        Of what is on disk no more the last are remembered (`MAX_GONE`, `MAX_GONE_MODELS`).

        Raises:
            UnimplementedError: a repository name was given.
            InternalError: a repository cannot be read any more.
        """
        if repository_name:
            raise UnimplementedError("'repository_name' specification is not supported")
        names = set(self._models)
        if not ready_only:
            on_disk = await self._list_models()
            names.update(on_disk)
            self.demand.know(*on_disk)
        entries = [
            entry
            for name in sorted(names)
            for entry in self._models.get(name, ModelRecord()).index_entries(name)
        ]
        return [entry for entry in entries if entry.state == "READY" or not ready_only]

    def all_ready(self) -> bool:
        """Whether the server is ready, as far as models go.

        That is after start and before close; with strict readiness only while no model has failed
        or is loading for the first time. Unloaded models do not count, nor do failed reloads.
        """
        if not self._is_started or self._is_closing:
            return False
        if not self._settings.strict_readiness:
            return True
        return all(record.is_healthy() for record in self._models.values())

    async def _list_models(self) -> list[str]:
        try:
            return await asyncio.to_thread(list_models, self._settings.paths)
        except StartupError as error:
            _log.error("%s", error)
            raise InternalError("a model repository cannot be read") from error

    def _check_control(self, repository_name: str) -> None:
        if self._settings.control_mode != "explicit":
            raise UnavailableError(
                "explicit model load / unload is not allowed if polling is enabled"
            )
        if repository_name:
            raise UnimplementedError("'repository_name' specification is not supported")
        self._check_open()

    def _check_open(self) -> None:
        if self._is_closing:
            raise UnavailableError("the server is shutting down, models can not be changed")

    async def _load(
        self,
        name: str,
        config_json: str | None,
        is_current: Callable[[], bool] = lambda: True,
        wish: Wish | None = None,
    ) -> None:
        await asyncio.to_thread(self._loader.check_exists, name)  # no state for unknown names
        plan = partial(self._loader.plan, name, config_json)
        prepare = partial(self._prepare, self._loader, is_current)
        await self._replace(name, plan, prepare, wish=wish)
        self._models[name].has_given_config = config_json is not None
        self.demand.remember(name, self.load_again(name, config_json))

    async def _unload(self, name: str) -> None:
        if name not in self._models:
            if name in await self._list_models():
                return
            raise NotFoundError(f"failed to unload '{name}', no such model is known")
        async with self._changing(name):
            self.demand.unloaded(name)
            self._serve(name, self._models[name], ())
            _log.info("model '%s' is unloaded", name, extra={"model": name})

    async def _forget_gone(self) -> None:
        """Has the index forget models that have been gone for longest, if there are many."""
        if not self.may_remember_too_many():
            return
        with contextlib.suppress(InternalError):  # a repository that cannot be read is not empty
            for name in self.gone_too_long(await self._list_models()):
                if name not in self._locks:  # else it is about to be loaded again
                    del self._models[name]
                    self.demand.forget(name)
                    self._engine.forget(name)
