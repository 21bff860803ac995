"""ModelManager: which models are served, and the loads and unloads that change it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_threads
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from penstock.codec import IndexEntry
from penstock.errors import (
    AbortedError,
    CoreError,
    InternalError,
    NotFoundError,
    StartupError,
    UnavailableError,
    UnimplementedError,
)
from penstock.repository.catalog import ModelCatalog, ModelRecord, ServedVersion, start_all
from penstock.repository.engine import ModelEngine
from penstock.repository.failures import (
    files_refusal,
    is_foreseen,
    load_failure,
    merge_failures,
)
from penstock.repository.layout import list_models
from penstock.repository.loader import LoadPlan, ModelLoader
from penstock.repository.settings import RepositorySettings

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("penstock.repository")


class ModelManager(ModelCatalog):
    """Serves the models of the repositories on an engine; a catalog that also changes.

    A load opens, checks and warms up every version that the policy chooses, then swaps them in at
    once and drains the old ones in the background. If any version fails nothing changes: what was
    served goes on, and the index says why.

    Threading: confined to the event loop; blocking work runs in threads, `load_threads` at a time.
    Ownership: owns the versions it loaded; borrows the engine, which outlives it.
    Lifecycle: constructed -> start -> (load | unload | reads)* -> close, also after a failed start.
    """

    def __init__(
        self,
        engine: ModelEngine,
        settings: RepositorySettings,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Serves nothing yet.

        Args:
            engine: what serves.
            settings: what to serve.
            on_change: called when a model begins or ceases to serve, to load or to be broken.
        """
        super().__init__()
        self._engine = engine
        self._on_change = on_change
        self._settings = settings
        self._loader = ModelLoader(engine, settings)
        # While somebody holds one or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._load_threads = ThreadPoolExecutor(settings.load_threads, "load")
        self._drain_threads = ThreadPoolExecutor(settings.load_threads, "drain")
        self._in_threads: set[Future[Any]] = set()  # outlive a task that is cancelled
        self._drain_timeout_s = settings.drain_timeout_s
        self._is_started = False
        self._is_closing = False

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
        await asyncio.shield(self._track(self._load(name, config_json)))

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
        await asyncio.shield(self._track(self._load(name, None, is_current)))

    async def refuse(self, name: str, reason: str) -> None:
        """Has the index say why a model cannot be loaded; what is served of it goes on."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            record = self._models.setdefault(name, ModelRecord())
            record.fail_load(f"failed to load '{name}', {reason}")
            self._publish(name, record)
            _log.error("failed to load '%s', %s", name, reason)

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
            names.update(await self._list_models())
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

    async def close(self, timeout_s: float) -> bool:
        """Takes no more loads, stops serving and drains everything.

        Args:
            timeout_s: for all of it; what is left then is for the engine's shutdown to end.

        Returns:
            Whether everything ended in time; if not, a thread may still be in a load or a drain,
            and the interpreter would wait for it at its end.
        """
        self._is_closing = True
        self._loader.close()
        self._drain_timeout_s = min(timeout_s, self._drain_timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self._wait_for_tasks(deadline)
        for name, record in self._models.items():
            self._serve(name, record, ())
        await self._wait_for_tasks(deadline)
        for task in self._tasks:
            task.cancel()
        self._load_threads.shutdown(wait=False, cancel_futures=True)
        self._drain_threads.shutdown(wait=False, cancel_futures=True)
        remaining_s = max(0.0, deadline - asyncio.get_running_loop().time())
        ended = await asyncio.to_thread(wait_for_threads, tuple(self._in_threads), remaining_s)
        return not ended.not_done

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
        self, name: str, config_json: str | None, is_current: Callable[[], bool] = lambda: True
    ) -> None:
        await asyncio.to_thread(self._loader.check_exists, name)  # no state for unknown names
        plan = partial(self._loader.plan, name, config_json)
        await self._replace(name, plan, partial(self._prepare, self._loader, is_current))
        self._models[name].has_given_config = config_json is not None

    async def _replace(
        self,
        name: str,
        make_plan: Callable[[], LoadPlan],
        prepare: Callable[[LoadPlan], Awaitable[list[ServedVersion]]],
    ) -> None:
        """Serves what `prepare` gives in place of what serves; if it fails nothing changes."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            record = self._models[name] = self._models.pop(name, ModelRecord())  # the latest last
            try:
                plan = await self._in_load_thread(make_plan)
                record.forget_gone(plan.model.versions)
                record.begin_load(plan.versions)
                self._publish(name, record)
                versions = await prepare(plan)
            except Exception as error:
                failure = load_failure(name, error)
                record.fail_load(failure.message)
                self._publish(name, record)
                level = logging.INFO if isinstance(failure, AbortedError) else logging.ERROR
                _log.log(level, "%s", failure.message, exc_info=not is_foreseen(error))
                raise failure from error
            self._serve(name, record, versions)
            _log.info("model '%s' serves version %s", name, ", ".join(map(str, record.serving)))

    async def _prepare(
        self, loader: ModelLoader, is_current: Callable[[], bool], plan: LoadPlan
    ) -> list[ServedVersion]:
        """All versions, started; or the faults of every one that failed."""
        prepared: list[ServedVersion] = []  # the only references: freed where it is cleared

        def prepare(version: int) -> None:
            prepared.append(loader.prepare(plan, version))

        outcomes = await asyncio.gather(
            *(self._in_load_thread(prepare, version) for version in plan.versions),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if outcome is not None]
        if not failures and not await self._in_load_thread(is_current):
            failures.append(AbortedError("its files changed while they were loaded"))
        if failures:
            await self._in_load_thread(prepared.clear)  # freeing a model takes time
            raise merge_failures(failures)
        await self._in_load_thread(start_all, prepared)
        return sorted(prepared, key=lambda served: served.version)

    async def _unload(self, name: str) -> None:
        if name not in self._models:
            if name in await self._list_models():
                return
            raise NotFoundError(f"failed to unload '{name}', no such model is known")
        async with self._locks.setdefault(name, asyncio.Lock()):
            self._serve(name, self._models[name], ())
            _log.info("model '%s' is unloaded", name)

    async def _forget_gone(self) -> None:
        """Has the index forget models that have been gone for longest, if there are many."""
        if not self.may_remember_too_many():
            return
        with contextlib.suppress(InternalError):  # a repository that cannot be read is not empty
            for name in self.gone_too_long(await self._list_models()):
                if name not in self._locks:  # else it is about to be loaded again
                    del self._models[name]
                    self._engine.forget(name)

    def _serve(self, name: str, record: ModelRecord, versions: Sequence[ServedVersion]) -> None:
        """Serves exactly these versions and drains those that served before."""
        replaced = record.swap(versions)
        self._publish(name, record)
        for old in replaced:
            self._track(self._drain(name, record, old))

    def _publish(self, name: str, record: ModelRecord) -> None:
        handles = [served.handle for served in record.serving.values()]
        self._engine.set_serving(name, handles, record.unready())
        self._on_change()

    async def _drain(self, name: str, record: ModelRecord, old: ServedVersion) -> None:
        timeout_s = self._drain_timeout_s
        try:
            in_time = await self._in_thread(self._drain_threads, old.handle.close, timeout_s)
            if not in_time:
                what = "requests were not finished within %g s and failed"
                _log.warning(f"model '%s' version %d: {what}", name, old.version, timeout_s)
        except Exception:
            _log.exception("model '%s' version %d: the drain failed", name, old.version)
        record.finish_unload(old.version)

    async def _in_load_thread(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._in_thread(self._load_threads, function, *args, **kwargs)

    async def _in_thread(
        self,
        threads: ThreadPoolExecutor,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        future = threads.submit(function, *args, **kwargs)
        self._in_threads.add(future)
        future.add_done_callback(self._in_threads.discard)
        return await asyncio.wrap_future(future)

    def _track(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that close waits for, and whose failure may go unread: its caller may be gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._untrack)
        return task

    def _untrack(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _wait_for_tasks(self, deadline: float) -> None:
        if self._tasks:
            remaining_s = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait(self._tasks, timeout=remaining_s)
