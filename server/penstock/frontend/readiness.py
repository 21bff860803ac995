"""Whether the server is ready, and who wants to hear of a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Readiness"]


class Readiness:
    """What liveness and readiness probes are answered with, on every protocol.

    Threading: confined to the event loop.
    Lifecycle: loading -> serving (`start`) -> unready (`withdraw`) -> closing (`close`). The state
    table is in `penstock.lifecycle`; this is what the frontend sees of it.
    """

    def __init__(self, models_ready: Callable[[], bool]) -> None:
        self._models_ready = models_ready
        self._is_serving = False
        self._has_started = False
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """The server takes traffic and the models that should serve do."""
        return self._is_serving and self._models_ready()

    @property
    def has_started(self) -> bool:
        """The models to be loaded at start were: what is unknown now is unknown for good."""
        return self._has_started

    @property
    def is_closing(self) -> bool:
        """Long-lived RPCs should come to an end."""
        return self._closing.is_set()

    def start(self) -> None:
        """The first load is done."""
        self._is_serving = self._has_started = True
        self.announce()

    def withdraw(self) -> None:
        """The drain begins: answer unready, serve on."""
        self._is_serving = False
        self.announce()

    def close(self) -> None:
        """Nothing new is taken; streams end once they have answered what they read."""
        self._is_serving = False
        self._closing.set()
        self.announce()

    def announce(self) -> None:
        """Wakes everybody who waits for a change; also called for every change of a model."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_closing(self) -> None:
        """Returns once `close` was called."""
        await self._closing.wait()

    def next_change(self) -> asyncio.Event:
        """An event that the next `announce` sets; take it before looking and miss nothing."""
        return self._changed
