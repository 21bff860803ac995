"""StoreReporter: tells the store how deployments fare on a server, and that the server is there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from penstock.errors import PenstockError
from penstock.store.failures import StoreUnavailableError, UnknownEntryError
from penstock.store.followed import FollowedStore
from penstock.store.records import HEARD_EVERY_S, Deployment, DeployStatus
from penstock.threads import Threads, end_tasks, is_set_within

__all__ = ["StoreReporter"]

_FIRST_PAUSE_S = 1.0
"""Before what failed is tried again; it doubles each time that it was waited out."""

_log = logging.getLogger("penstock.store")


class StoreReporter:
    """Says what there is to report at once, and every HEARD_EVERY_S that this server is there.

    What fails is tried again, after pauses that grow up to HEARD_EVERY_S. Nothing waits for it: a
    store may be read that cannot be written.

    Threading: confined to the event loop; the store is told on a thread of its own.
    Ownership: its task and its thread; borrows the store.
    Lifecycle: constructed -> start -> close; `report` and `tell` at any time before the close.
    """

    def __init__(
        self,
        store: FollowedStore,
        environment: str,
        server: str,
        is_set_within: Callable[[asyncio.Event, float], Awaitable[bool]] = is_set_within,
    ) -> None:
        """Says nothing yet; `server` is what reports call it."""
        self._store = store
        self._server = server
        self._hear = partial(store.hear, environment, server)
        self._is_set_within = is_set_within
        self._reports: dict[int, Callable[[], None]] = {}  # that the store does not know
        self._said: dict[int, tuple[str, str, str]] = {}  # of each deployment, whether sent or not
        self._waking = asyncio.Event()
        self._trouble = ""
        self._telling: asyncio.Task[None] | None = None
        self._threads = Threads(1, "report")

    def start(self) -> None:
        """Begins to say that this server is there, and what is to be reported."""
        self._telling = asyncio.get_running_loop().create_task(self._tell_until_closed())

    async def close(self, timeout_s: float) -> bool:
        """Says nothing more; whether what was being said ended in time."""
        await end_tasks(self._telling)
        return await self._threads.close(timeout_s)

    def wake(self) -> None:
        """It may be worth a try now."""
        self._waking.set()

    @property
    def unreported(self) -> int:
        """How many outcomes the store does not know."""
        return len(self._reports)

    def report(self, target: Deployment, status: DeployStatus, **told: str) -> None:
        """How a deployment fares; nothing where that was said last and is not lost.

        What the store knows, as of when the target was read, may be older than what was said.
        """
        known = next((each[1:4] for each in target.reports if each.server == self._server), None)
        said = (status.value, told.get("reason", ""), told.get("digest", ""))
        is_kept = known == said or target.id in self._reports
        if is_kept and self._said.get(target.id, known) == said:
            return
        self._said[target.id] = said
        self._reports[target.id] = partial(
            self._store.report, target.id, self._server, status, **told
        )
        self.wake()

    def forget_all_but(self, current: Collection[int]) -> None:
        """Of other deployments there is nothing more to say than what waits to be sent."""
        kept = {*current, *self._reports}
        self._said = {number: said for number, said in self._said.items() if number in kept}

    async def tell(self) -> bool:
        """One try; whether the store now knows everything. Failures are logged once."""
        try:
            await self._threads.run(self._hear)
            await self._send_reports()
        except Exception as error:
            is_told, self._trouble = bool(self._trouble), str(error) or type(error).__name__
            if not is_told:  # once, until it succeeds
                text = "the store cannot be told how this server fares, nor that it is there: %s"
                is_foreseen = isinstance(error, PenstockError)
                _log.warning(text, self._trouble, exc_info=None if is_foreseen else error)
            return False
        self._trouble = ""
        return True

    async def _send_reports(self) -> None:
        failures = []
        for number, report in list(self._reports.items()):
            try:
                await self._threads.run(report)
            except UnknownEntryError as error:  # a deployment that is not there any more
                _log.error("deployment %d cannot be reported: %s", number, error)
            except StoreUnavailableError:
                raise
            except Exception as error:  # of this one; others may be taken
                failures.append(error)
                continue
            if self._reports.get(number) is report:
                del self._reports[number]
        if failures:
            raise failures[0]

    async def _tell_until_closed(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._waking.clear()
            if await self.tell():
                pause_s = _FIRST_PAUSE_S
                await self._is_set_within(self._waking, HEARD_EVERY_S)
                continue
            part = random.uniform(0.5, 1.0)  # many servers may have lost the same store
            is_woken = await self._is_set_within(self._waking, pause_s * part)
            pause_s = _FIRST_PAUSE_S if is_woken else min(2 * pause_s, HEARD_EVERY_S)
