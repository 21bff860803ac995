"""StoreFollower: keeps what a server serves in step with what is deployed to its environment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from penstock.errors import PenstockError, StartupError
from penstock.store.failures import NoRoomError, StoreError, StoreUnavailableError
from penstock.store.followed import Deployer, FollowedStore
from penstock.store.records import Deployment, DeployStatus, Desired
from penstock.store.reporter import StoreReporter
from penstock.threads import Threads, end_tasks, is_set_within

__all__ = ["Deployer", "FollowedStore", "FollowerSettings", "StoreFollower"]

T = TypeVar("T")

_log = logging.getLogger("penstock.store")


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """How to follow.

    Attributes:
        environment: that is served.
        interval_s: from the end of one look to the next.
        exit_on_error: a model that cannot be served at start stops the server.
    """

    environment: str
    interval_s: float = 0.5
    exit_on_error: bool = True


@dataclass(frozen=True, slots=True)
class _Serving:
    version: int
    digest: str
    loaded: str


class StoreFollower:
    """Looks at the environment's generation again and again, and deploys what has changed.

    A model's deployments are done one after the other, the newest wins. What cannot be served is
    reported, and what served before serves on. While the store cannot be reached nothing changes;
    reports wait until it can. A model whose bytes cannot be had at start is missing until they can.
    What fails while the server stops is neither remembered nor reported: the stop fails it.

    Threading: confined to the event loop, but for `wake`; the store is asked on a thread of
    its own. Ownership: its tasks and its thread, the reporter; borrows the store and the deployer.
    Lifecycle: constructed -> look -> start -> stop -> close; close also from any state before.
    """

    def __init__(
        self,
        store: FollowedStore,
        deployer: Deployer,
        settings: FollowerSettings,
        reporter: StoreReporter,
    ) -> None:
        """Does nothing yet.

        Args:
            store: whose environment it is.
            deployer: what serves.
            settings: how.
            reporter: is told what came of it.
        """
        self._store = store
        self._deployer = deployer
        self._settings = settings
        self._reporter = reporter
        self.environment = settings.environment
        self._waking = asyncio.Event()
        self._stopping = asyncio.Event()
        self._generation = -1
        self._serving: dict[str, _Serving] = {}
        self._settled: dict[str, int] = {}  # the deployment that was last done, or tried
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, str] = {}  # of models of which nothing serves
        self._blocked: dict[str, dict[int, str]] = {}  # why deployments wait: no bytes, no room
        self._absent: set[str] = set()  # models that serve elsewhere, and here wait
        self._counts = {"done": 0, "failed": 0}
        self._trouble = ""
        self._loop: asyncio.Task[None] | None = None
        self._threads = Threads(1, "store")

    async def look(self) -> None:
        """The first look: serves what is deployed.

        Raises:
            StartupError: the store cannot be read, or, with exit_on_error, nothing of a model can
                be served.
        """
        try:
            await self._follow()
        except StoreError as error:
            raise StartupError(str(error)) from error
        while self._busy:
            await asyncio.gather(*self._busy.values())
        if self._failures and self._settings.exit_on_error:
            await self._reporter.tell()
            raise StartupError("; ".join(self._failures.values()))
        await self.poll()  # for what was asked for meanwhile
        if not (self._serving or self._absent or self._failures or self._counts["failed"]):
            await self._warn_of_nothing()

    async def _warn_of_nothing(self) -> None:
        """With what other environments there are: the name may be misspelt."""
        others: list[str] = []
        with suppress(StoreError):
            others = await self._threads.run(self._store.environment_names)
        environment = self._settings.environment
        told = ", ".join(f"'{each}'" for each in others if each != environment) or "none"
        text = "nothing is deployed to environment '%s' yet; other environments of the store: %s"
        _log.warning(text, environment, told)

    def start(self) -> None:
        """Begins to follow, and to say that this server is there."""
        self._loop = asyncio.get_running_loop().create_task(self._poll_until_stopped())
        self._reporter.start()

    def wake(self) -> None:
        """There may be something new. On the loop's thread."""
        self._waking.set()

    def stop(self) -> None:
        """Ends it; a deployment under way goes on."""
        self._stopping.set()
        self._waking.set()

    async def close(self, timeout_s: float) -> bool:
        """Stops, and waits for what asks the store; whether that ended in time."""
        self.stop()
        await end_tasks(*self._busy.values(), self._loop)
        closing = self._reporter.close(timeout_s), self._threads.close(timeout_s)
        return all(await asyncio.gather(*closing))

    def stats(self) -> Mapping[str, Any]:
        """For metrics: whether the store can be reached, what waits, and what was done."""
        return {
            "is_up": not (self._trouble or self._blocked),
            "unreported": self._reporter.unreported,
            "deployments": dict(self._counts),
            "generation": max(self._generation, 0),
            "serving": {
                name: (each.version, each.loaded) for name, each in sorted(self._serving.items())
            },
        }

    async def poll(self) -> None:
        """One look; begins what there is to do. Does not raise."""
        try:
            await self._follow()
        except Exception as error:
            self._tell_trouble(error)
            return
        if self._trouble:
            self._trouble = ""
            self._reporter.wake()
            _log.info("the store answers again")

    async def _follow(self) -> None:
        generation = await self._threads.run(
            partial(self._store.generation, self._settings.environment)
        )
        if generation == self._generation:
            return
        generation, desired = await self._threads.run(
            partial(self._store.desired, self._settings.environment)
        )
        if self._stopping.is_set():
            return
        self._generation = generation
        wanted = [each for pair in desired for each in (pair.target, pair.fallback)]
        self._reporter.forget_all_but({each.id for each in wanted if each is not None})
        self._forget_all_but({each.target.model for each in desired})
        for each in desired:
            if each.target.model in self._busy:
                self._generation = -1  # looked at again when that is over
            else:
                self._begin(each.target.model, self._apply(each))

    def _forget_all_but(self, desired: set[str]) -> None:
        """What nobody wants any more neither waits nor is missing."""
        for model in [*self._blocked, *self._failures, *self._absent]:
            if model not in desired and model not in self._busy:
                self._blocked.pop(model, None)
                self._failures.pop(model, None)
                self._absent.discard(model)
        self._tell_missing()

    def _tell_missing(self) -> None:
        self._deployer.set_missing(frozenset(self._failures) | self._absent)

    async def _poll_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await is_set_within(self._waking, self._settings.interval_s)
            if not self._stopping.is_set():
                self._waking.clear()
                await self.poll()

    async def _apply(self, desired: Desired) -> None:
        """Serves the target; where that fails and nothing serves, what served before."""
        target, fallback = desired.target, desired.fallback
        if target.status == DeployStatus.WITHDRAWN:
            await self._withdraw(target)
            return
        served = await self._try(target, fallback)
        waits = served is None
        if not served and fallback is not None and target.model not in self._serving:
            waits = await self._try(fallback, None) is None or waits
        if waits:
            self._generation = -1
        self._tell_missing()

    async def _withdraw(self, target: Deployment) -> None:
        model = target.model
        self._blocked.pop(model, None)
        self._failures.pop(model, None)
        self._absent.discard(model)
        self._settled[model] = target.id
        self._tell_missing()
        if model in self._serving:
            text = "'%s' is withdrawn from environment '%s'"
            _log.info(text, model, target.environment, extra={"model": model})
            await self._deployer.withdraw(model)
            del self._serving[model]

    async def _try(self, target: Deployment, previous: Deployment | None) -> bool | None:
        """Whether it serves; None: that is not known yet, it is to be tried again."""
        model = target.model
        serving = self._serving.get(model)
        if serving is not None and (serving.version, serving.digest) == _identity(target):
            self._blocked.pop(model, None)
            self._settle(target, DeployStatus.SERVING, digest=serving.loaded)
            return True
        if self._settled.get(model) == target.id:
            return False  # it failed here, and nothing about it is new
        named = f"{model}@{target.version}"
        about = {"model": model, "version": target.version}
        if model not in self._blocked:
            _log.info("deploying %s to environment '%s'", named, target.environment, extra=about)
        try:
            loaded = await self._deployer.deploy(target, previous)
        except Exception as error:
            if self._stopping.is_set():
                _log.info("deploying %s ends as the server stops: %r", named, error, extra=about)
                return None
            if isinstance(error, (StoreUnavailableError, NoRoomError)):
                self._wait(target, error)
                return None
            self._fail(target, error)
            return False
        self._blocked.pop(model, None)
        self._serving[model] = _Serving(*_identity(target), loaded)
        self._failures.pop(model, None)
        self._absent.discard(model)
        self._counts["done"] += 1
        self._settle(target, DeployStatus.SERVING, digest=loaded)
        return True

    def _wait(self, target: Deployment, error: StoreError) -> None:
        """Says once why; that this machine has no room is for others to know too."""
        model, reason = target.model, str(error)
        if model not in self._serving and target.status == DeployStatus.SERVING:
            self._absent.add(model)
        is_room = isinstance(error, NoRoomError)
        known = self._blocked.setdefault(model, {})
        if known.get(target.id) == reason or (is_room and target.id in known):
            return
        known[target.id] = reason
        text = "deploying %s@%d waits: %s; what is served is served on"
        about = {"model": model, "version": target.version}
        _log.error(text, model, target.version, error, extra=about)
        if is_room:
            self._reporter.report(target, DeployStatus.WAITING, reason=reason)

    def _fail(self, target: Deployment, error: Exception) -> None:
        reason = f"unexpected {type(error).__name__}"
        is_foreseen = isinstance(error, PenstockError)
        if is_foreseen:
            reason = str(error).removeprefix(f"failed to load '{target.model}', ")
        self._blocked.pop(target.model, None)
        self._absent.discard(target.model)
        model, serving = target.model, self._serving.get(target.model)
        named = f"{model}@{target.version}"
        self._counts["failed"] += 1
        if serving is None and target.status == DeployStatus.SERVING:
            self._failures[model] = f"{named} cannot be served: {reason}"
        goes_on = f"{model}@{serving.version} serves on" if serving else "nothing of it serves"
        about = {"model": model, "version": target.version}
        text = "deploying %s failed, %s: %s"
        shown = None if is_foreseen else error
        _log.error(text, named, goes_on, reason, extra=about, exc_info=shown)
        self._settle(target, DeployStatus.FAILED, reason=reason)

    def _settle(self, target: Deployment, status: DeployStatus, **told: str) -> None:
        """Remembers how it went, and what is to be reported."""
        self._settled[target.model] = target.id
        self._reporter.report(target, status, **told)

    def _tell_trouble(self, error: Exception) -> None:
        """Once, however many looks have the same trouble."""
        if str(error) == self._trouble:
            return
        self._trouble = str(error)
        is_foreseen = isinstance(error, PenstockError)
        text = "%s; what is served is served on, and deployments wait"
        _log.error(text, error, exc_info=None if is_foreseen else error)

    def _begin(self, model: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._busy[model] = task
        task.add_done_callback(lambda _: self._end(model))

    def _end(self, model: str) -> None:
        del self._busy[model]
        if self._generation == -1 and not (self._trouble or self._blocked):
            self._waking.set()


def _identity(target: Deployment) -> tuple[int, str]:
    return target.version, target.digest
