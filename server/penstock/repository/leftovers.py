"""Leftovers: versions whose drain was not in time, until they have ended and are freed.

A batch cannot be stopped in the middle. Its version is drained again every second, which takes no
time while the batch runs; the core tells nobody when it has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from penstock.repository.catalog import ServedVersion
from penstock.threads import Threads

__all__ = ["Leftovers"]

_PERIOD_S = 1.0

_log = logging.getLogger("penstock.repository")


class Leftovers:
    """Looks after them.

    Threading: confined to the event loop; what blocks runs on the threads.
    Ownership: the versions that it was given; borrows the threads.
    Lifecycle: (add | look)* -> close.
    """

    def __init__(self, threads: Threads, freed: Callable[[ServedVersion], None]) -> None:
        """`freed` is told of each version that is no more."""
        self._threads = threads
        self._freed = freed
        self._left: list[tuple[str, ServedVersion]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def add(self, name: str, version: ServedVersion) -> None:
        """A version of the model was closed, and is not freed."""
        self._left.append((name, version))
        self._set_timer()

    async def look(self) -> None:
        """Frees what has ended by now. Does not raise."""
        for name, version in list(self._left):
            about = {"model": name, "version": version.version}
            try:
                if not await self._threads.run(version.reap):
                    continue
                text = "model '%s' version %d: what was left of it has ended"
                _log.info(text, *about.values(), extra=about)
                self._freed(version)
            except Exception:  # once: what it takes stays taken
                text = "model '%s' version %d: freeing it failed"
                _log.exception(text, *about.values(), extra=about)
            self._left = [each for each in self._left if each[1] is not version]

    def close(self) -> None:
        """Looks no more: what is left is for the engine's shutdown to end."""
        self._left.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _set_timer(self) -> None:
        if self._timer is None and self._left:
            self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._on_timer)

    def _on_timer(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self.look())
        self._looking.add_done_callback(self._on_looked)

    def _on_looked(self, _: asyncio.Task[None]) -> None:
        self._timer = None
        self._set_timer()
