"""ServingModels: how what serves is replaced: loads, swaps, drains, and who makes room for whom."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from penstock.errors import AbortedError, CoreError
from penstock.repository.catalog import (
    ModelCatalog,
    ModelRecord,
    ServedVersion,
    parse_version,
    start_all,
)
from penstock.repository.demand import Demand
from penstock.repository.engine import ModelEngine
from penstock.repository.failures import is_foreseen, load_failure, merge_failures
from penstock.repository.instances import ScalableVersion
from penstock.repository.leftovers import Leftovers
from penstock.repository.loader import LoadPlan, ModelLoader
from penstock.repository.memory import anonymous_bytes
from penstock.repository.own_parameters import instance_bounds
from penstock.repository.residency import LoadGivenUpError, Residency
from penstock.repository.residents import Wish
from penstock.repository.settings import RepositorySettings
from penstock.repository.states import EVICTED, UNLOADED
from penstock.threads import Threads

__all__ = ["ServingModels"]

T = TypeVar("T")

_log = logging.getLogger("penstock.repository")


class ServingModels(ModelCatalog):
    """A catalog whose models are loaded, swapped, unloaded and drained.

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
        measure: Callable[[], int] = anonymous_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serves nothing yet.

        Args:
            engine: what serves.
            settings: what to serve.
            on_change: called when a model begins or ceases to serve, to load or to be broken.
            measure: bytes of memory that are in use, for the memory budget; blocking.
            clock: monotonic, s; of the memory budget.
        """
        super().__init__()
        self._engine = engine
        self._on_change = on_change
        self._settings = settings
        self._loader = ModelLoader(engine, settings)
        # While somebody holds one or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._wishes: Counter[str] = Counter()  # that wait for one
        self._tasks: set[asyncio.Task[Any]] = set()
        self._load_threads = Threads(settings.load_threads, "load")
        self._drain_threads = Threads(settings.load_threads, "drain")
        self._residency = Residency(
            settings.memory_budget_bytes, settings.min_residency_s, self, measure, clock
        )
        self.leftovers = Leftovers(self._drain_threads, self._residency.freed)
        self.demand = Demand(self, self._residency, engine, clock)
        self._drain_timeout_s = settings.drain_timeout_s
        self._is_started = False
        self._is_closing = False

    @property
    def is_closing(self) -> bool:
        """Whether nothing is loaded any more."""
        return self._is_closing

    def record(self, name: str) -> ModelRecord | None:
        """What is known of a model; None: nothing yet."""
        return self._models.get(name)

    def names(self) -> list[str]:
        """Of all that is known."""
        return list(self._models)

    def publish(self, name: str, record: ModelRecord) -> None:
        """A model becomes known."""
        self._models[name] = record
        self._publish(name, record)

    def plan(self, name: str) -> LoadPlan:
        """Blocking. As `ModelLoader.plan`."""
        return self._loader.plan(name)

    def load_again(
        self, name: str, config_json: str | None = None
    ) -> Callable[..., Awaitable[bool]]:
        """What loads a model of the repositories, as `_replace` with its arguments."""
        prepare = partial(self._prepare, self._loader, lambda: True)
        return partial(self._replace, name, partial(self._loader.plan, name, config_json), prepare)

    def on_demand(self, name: str) -> None:
        """Begins to load a model that requests wait for."""
        self._track(self.demand.load(name))

    async def bring(self, name: str, version: str = "") -> None:
        """Has a model loaded that a request would load; nothing for any other.

        Raises:
            InvalidArgumentError: the version is not a number.
            CoreError: as its load.
        """
        await self.demand.bring(name, parse_version(version))

    def memory(self) -> Mapping[str, Any] | None:
        """What is counted of the memory budget; None: there is none."""
        return self.demand.stats()

    def engines(self) -> Mapping[str, int] | None:
        """What is counted of the cache of engines; None: none was asked for."""
        plans = self._settings.plans
        return None if plans is None else plans.stats()

    def scalable(self) -> list[ScalableVersion]:
        """The versions that serve and leave the number of their instances open."""
        return [
            ScalableVersion(
                name, served, bounds, self._residency, self._load_threads, self._drain_threads
            )
            for name, record in self._models.items()
            for served in record.serving.values()
            if (bounds := instance_bounds(served.config)) is not None
        ]

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
        self.demand.close()
        self._drain_timeout_s = min(timeout_s, self._drain_timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self._wait_for_tasks(deadline)
        for name, record in self._models.items():
            self._serve(name, record, ())
        await self._wait_for_tasks(deadline)
        for task in self._tasks:
            task.cancel()
        self.leftovers.close()
        remaining_s = max(0.0, deadline - asyncio.get_running_loop().time())
        ended = await asyncio.gather(
            self._load_threads.close(remaining_s), self._drain_threads.close(remaining_s)
        )
        return all(ended)

    async def _replace(
        self,
        name: str,
        make_plan: Callable[[], LoadPlan],
        prepare: Callable[[LoadPlan], Awaitable[list[ServedVersion]]],
        is_wanted: Callable[[], bool] | None = None,
        wish: Wish | None = None,
    ) -> bool:
        """Serves what `prepare` gives in place of what serves; if it fails nothing changes.

        `is_wanted`: of a load on demand, which there is no need of where the model serves: False.
        `wish`: of any other; None: it came now, and is not firm.
        """
        wish = wish or Wish(self._residency.loads)
        async with self._changing(name, is_wish=is_wanted is None):
            if is_wanted is not None and not self.awaits(name):
                return False
            record = self._models[name] = self._models.pop(name, ModelRecord())  # the latest last
            try:
                plan = await self._load_threads.run(make_plan)
                if is_wanted is not None:
                    self._check_wanted(name, plan, is_wanted)
                record.forget_gone(plan.model.versions)
                record.begin_load(plan.versions)
                self._publish(name, record)
                loads = partial(self._begin, name, record, plan, prepare)
                versions = await self._residency.load(name, plan, loads, is_wanted, wish)
            except LoadGivenUpError:
                record.give_up_load()
                self._publish(name, record)
                raise
            except Exception as error:
                raise self._fail_load(name, record, error) from error
            self.demand.loaded(name, record, partial(self._replace, name, make_plan, prepare))
            self._serve(name, record, versions)
            about = {"model": name, "version": ", ".join(map(str, record.serving))}
            _log.info("model '%s' serves version %s", *about.values(), extra=about)
            return True

    async def _begin(
        self,
        name: str,
        record: ModelRecord,
        plan: LoadPlan,
        prepare: Callable[[LoadPlan], Awaitable[list[ServedVersion]]],
    ) -> list[ServedVersion]:
        """There is room, for which what served may have been unloaded for another model."""
        record.begin_load(plan.versions)
        self._publish(name, record)
        return await prepare(plan)

    @asynccontextmanager
    async def _changing(self, name: str, *, is_wish: bool = True) -> AsyncIterator[None]:
        """Has the model's lock; a load that has it does not wait for room any longer for a wish."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._wishes[name] += is_wish
        try:
            await lock.acquire()
        finally:
            self._wishes[name] -= is_wish
            if not self._wishes[name]:
                del self._wishes[name]
        try:
            yield
        finally:
            lock.release()

    def is_outrun(self, name: str) -> bool:
        """Whether somebody waits to load or unload it for the load that is under way to end."""
        return self._wishes[name] > 0

    def _check_wanted(self, name: str, plan: LoadPlan, is_wanted: Callable[[], bool]) -> None:
        """Those who wait for a version that the load does not bring go without it."""
        self.demand.set_loadable(name, plan.versions)
        if not is_wanted():
            raise LoadGivenUpError(name)

    def _fail_load(self, name: str, record: ModelRecord, error: Exception) -> CoreError:
        """The index says why; the failure, for who asked."""
        failure = load_failure(name, error)
        record.fail_load(failure.message)
        self._publish(name, record)
        level = logging.INFO if isinstance(failure, AbortedError) else logging.ERROR
        trace = error if not is_foreseen(error) else None
        _log.log(level, "%s", failure.message, exc_info=trace, extra={"model": name})
        return failure

    async def _prepare(
        self, loader: ModelLoader, is_current: Callable[[], bool], plan: LoadPlan
    ) -> list[ServedVersion]:
        """All versions, started; or the faults of every one that failed."""
        prepared: list[ServedVersion] = []  # the only references: freed where it is cleared

        def prepare(version: int) -> None:
            prepared.append(loader.prepare(plan, version))

        outcomes = await asyncio.gather(
            *(self._load_threads.run(prepare, version) for version in plan.versions),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if outcome is not None]
        if not failures and not await self._load_threads.run(is_current):
            failures.append(AbortedError("its files changed while they were loaded"))
        if failures:
            await self._load_threads.run(prepared.clear)  # freeing a model takes time
            raise merge_failures(failures)
        try:
            await self._load_threads.run(start_all, prepared)
        except Exception:  # the system has no threads to give: those that have one are ended
            await self.discard(plan.model.name, prepared)
            raise
        return sorted(prepared, key=lambda served: served.version)

    def awaits(self, name: str) -> bool:
        """Whether a load on demand has a point: it does not serve, nor was it unloaded by wish."""
        record = self._models.get(name)
        return record is None or (record.on_demand and not record.serving)

    def _serves(self, name: str) -> bool:
        record = self._models.get(name)
        return record is not None and bool(record.serving)

    def can_evict(self, name: str) -> bool:
        """Whether it serves, has no request, and no load of it does more than wait for room."""
        lock, record = self._locks.get(name), self._models.get(name)
        if record is None or not record.serving:
            return False
        is_held = lock is not None and lock.locked()
        if is_held and not self._residency.waits_for_room(name):
            return False
        return record.is_idle()

    def evict(self, name: str, why: str) -> Awaitable[None] | None:
        """Unloads a model without requests; what to await, or None where it cannot be now."""
        if not self.can_evict(name):
            return None
        record = self._models[name]
        self._engine.set_serving(name, [], record.unready(), loads_on_demand=True)
        if not record.is_idle():  # a request came; those behind it wait
            self._publish(name, record)
            return None
        text = "model '%s' is unloaded for the memory budget: it is idle, and %s"
        _log.info(text, name, why, extra={"model": name})
        return _all(self._serve(name, record, (), EVICTED))

    async def discard(self, name: str, versions: Sequence[ServedVersion]) -> None:
        """Frees versions that were loaded and will not serve, or leaves them to be looked after."""
        await asyncio.gather(*(self._close(name, version) for version in versions))

    def _serve(
        self,
        name: str,
        record: ModelRecord,
        versions: Sequence[ServedVersion],
        reason: str = UNLOADED,
    ) -> list[asyncio.Task[None]]:
        """Serves exactly these versions and drains those that served before."""
        replaced = record.swap(versions, reason)
        self._residency.unloading(replaced)
        self._publish(name, record)
        return [self._track(self._drain(name, record, old)) for old in replaced]

    def _publish(self, name: str, record: ModelRecord) -> None:
        handles = [served.handle for served in record.serving.values()]
        on_demand = record.on_demand and not self._is_closing
        self._engine.set_serving(name, handles, record.unready(), on_demand)
        self._on_change()

    async def _drain(self, name: str, record: ModelRecord, old: ServedVersion) -> None:
        await self._close(name, old)
        record.finish_unload(old.version)

    async def _close(self, name: str, old: ServedVersion) -> None:
        about, timeout_s = {"model": name, "version": old.version}, self._drain_timeout_s
        try:
            if await self._drain_threads.run(old.close, timeout_s):
                self._residency.freed(old)
                return
            text = "model '%s' version %d: requests were not finished within %g s and failed"
            _log.warning(text, name, old.version, timeout_s, extra=about)
        except Exception:
            _log.exception("model '%s' version %d: the drain failed", *about.values(), extra=about)
        self._residency.left_behind(old)
        self.leftovers.add(name, old)

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


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)
