"""RepositoryPoller: keeps what is served in step with the repositories on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from penstock.errors import AbortedError, CoreError, StartupError
from penstock.repository.changes import find_changes, find_vanished
from penstock.repository.snapshot import ModelSnapshot, Snapshot
from penstock.threads import Threads, end_tasks, is_set_within

__all__ = ["PolledModels", "RepositoryPoller", "Scanner"]

T = TypeVar("T")

_log = logging.getLogger("penstock.repository")


class PolledModels(Protocol):
    """What of the model manager polling needs. Each logs and indexes its failures."""

    async def follow(self, name: str, is_current: Callable[[], bool]) -> None:
        """Loads or reloads; nothing changes unless `is_current` (blocking) holds after the load."""

    async def refuse(self, name: str, reason: str) -> None:
        """Says why a model cannot be loaded; what is served of it goes on."""

    async def withdraw(self, name: str) -> None:
        """Stops serving a model that is no longer there."""


class Scanner(Protocol):
    """What of the RepositoryScanner polling needs. Thread-safe, blocking."""

    def scan(self) -> Snapshot:
        """All models; StartupError: a repository cannot be read."""

    def scan_model(self, name: str) -> ModelSnapshot:
        """One model; without entries where there is none."""


class RepositoryPoller:
    """Looks at the repositories again and again, and has stable changes followed.

    A model is loaded once it looked the same in two polls one after the other, and differently from
    when it was last loaded or tried. It is withdrawn once two polls did not find it. While a
    repository cannot be read nothing changes. A load does not hold up the polls that follow.

    Threading: confined to the event loop; scans run on a thread of its own, one at a time.
    Ownership: its tasks and its thread; borrows the models and the scanner.
    Lifecycle: constructed -> look -> the models are loaded -> start -> stop -> close; close also
    from any state before.
    """

    def __init__(
        self,
        models: PolledModels,
        scanner: Scanner,
        interval_s: float,
        is_set_within: Callable[[asyncio.Event, float], Awaitable[bool]] = is_set_within,
    ) -> None:
        """Does nothing yet.

        Args:
            models: what is kept in step.
            scanner: of the repositories.
            interval_s: from the end of one poll to the next.
            is_set_within: waits for an event, and says whether it came in time.
        """
        self._models = models
        self._scanner = scanner
        self._interval_s = interval_s
        self._is_set_within = is_set_within
        self._stopping = asyncio.Event()
        self._previous = Snapshot()
        self._tried: dict[str, ModelSnapshot | None] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._threads = Threads(1, "poll")
        self._trouble = ""

    async def look(self) -> None:
        """The first look, before the models are loaded: what changes from now on is noticed.

        Raises:
            StartupError: a repository cannot be read.
        """
        self._previous = await self._threads.run(self._scanner.scan)
        self._tried = dict(self._previous.models)

    def start(self) -> None:
        """Begins to poll."""
        self._loop = asyncio.get_running_loop().create_task(self._poll_until_stopped())

    def stop(self) -> None:
        """Ends the polling; what is being loaded goes on."""
        self._stopping.set()

    async def close(self, timeout_s: float) -> bool:
        """Stops, and waits for a scan under way; whether that ended in time."""
        self.stop()
        await end_tasks(*self._busy.values(), self._loop)
        return await self._threads.close(timeout_s)

    async def poll(self) -> None:
        """One poll: looks, and begins what there is to do about what it saw. Does not raise."""
        try:
            current = await self._threads.run(self._scanner.scan)
            vanished = find_vanished(self._previous, current)
            if vanished:
                raise StartupError(f"model repository '{vanished[0].path}' is not mounted any more")
        except Exception as error:
            self._tell_trouble(error)
            return
        if self._stopping.is_set():
            return
        if self._trouble:
            self._trouble = ""
            _log.info("the model repositories can be read again")
        previous, self._previous = self._previous, current
        changes = find_changes(previous, current, self._tried, self._busy)
        for name in changes.load:
            self._begin(name, self._load(name, current.models[name]))
        for name in changes.refuse:
            self._begin(name, self._refuse(name, current.models[name]))
        for name in changes.unload:
            self._begin(name, self._withdraw(name))

    async def _poll_until_stopped(self) -> None:
        while not await self._is_set_within(self._stopping, self._interval_s):
            await self.poll()

    def _tell_trouble(self, error: Exception) -> None:
        """Once, however many polls have the same trouble."""
        if str(error) == self._trouble:
            return
        self._trouble = str(error)
        is_foreseen = isinstance(error, StartupError)
        text = "%s; what is served is served on, and changes are not followed"
        _log.error(text, error, exc_info=None if is_foreseen else error)

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._busy[name] = task
        task.add_done_callback(lambda _: self._busy.pop(name))

    async def _load(self, name: str, snapshot: ModelSnapshot) -> None:
        """What is loaded is what the snapshot shows, or it is not served and tried again."""

        def is_current() -> bool:
            return self._scanner.scan_model(name) == snapshot

        try:
            await self._models.follow(name, is_current)
            has_settled = True
        except AbortedError:  # nothing is wrong with the model, and it may look as before by now
            has_settled = False
        except CoreError:  # told by the models
            has_settled = await self._threads.run(
                is_current
            )  # else it may not have been the model's fault
        except Exception:
            text = "model '%s': following its directory failed"
            _log.exception(text, name, extra={"model": name})
            has_settled = True
        self._tried[name] = snapshot if has_settled else None

    async def _refuse(self, name: str, snapshot: ModelSnapshot) -> None:
        await self._models.refuse(name, snapshot.fault)
        self._tried[name] = snapshot

    async def _withdraw(self, name: str) -> None:
        await self._models.withdraw(name)
        del self._tried[name]
