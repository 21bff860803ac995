"""AvailabilityWatch: tells when a version that serves loses its last worker, or has one again.

The core says so when asked and never by itself: no thread of it calls into Python. So it is asked
every second; what it costs is a look at two numbers for each instance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PERIOD_S = 1.0


class AvailabilityWatch:
    """Asks, and announces a change.

    Threading: confined to the event loop. Lifecycle: start -> stop.
    """

    def __init__(
        self,
        unavailable: Callable[[], frozenset[tuple[str, int]]],
        announce: Callable[[], None],
        period_s: float = PERIOD_S,
    ) -> None:
        self._unavailable = unavailable
        self._announce = announce
        self._period_s = period_s
        self._last: frozenset[tuple[str, int]] = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to ask, on the running loop."""
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._look)

    def stop(self) -> None:
        """Asks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._unavailable()
        if now != self._last:
            self._last = now
            self._announce()
        self.start()
