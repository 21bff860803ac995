"""Files that are read anew when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.certificates import signature
from penstock.errors import ConfigError

__all__ = ["FileWatch"]

_log = logging.getLogger(__name__)


class FileWatch:
    """Looks at a file, or several, from time to time and has them read when one has changed.

    A file that turned bad changes nothing: what was read last stays, and the log says so once.

    Threading: confined to the event loop; reading is done in a thread.
    Lifecycle: constructed -> load -> start -> stop.
    """

    def __init__(
        self, path: Path | Sequence[Path], interval_s: float, read: Callable[[], None]
    ) -> None:
        """`read` reads the files and raises ConfigError when they will not do."""
        self._paths = [path] if isinstance(path, Path) else list(path)
        self._interval_s = interval_s
        self._read = read
        self._seen: list[tuple[int, int, int] | None] = []
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Reads the files for the first time; ConfigError when they will not do."""
        self._seen = self._signatures()
        self._read()

    def start(self) -> None:
        """Begins to watch."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ends the watch."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), self._interval_s)
            except TimeoutError:
                await asyncio.to_thread(self._look)

    def _look(self) -> None:
        found = self._signatures()
        if found == self._seen:
            return
        self._seen = found
        try:
            self._read()
        except ConfigError as error:
            _log.error("what was read before stays in force: %s", error)
        except Exception:  # a defect: it must not end the watch
            _log.exception("reading %s failed; what was read before stays in force", self._text())
        else:
            _log.info("%s: read anew after a change", self._text())

    def _signatures(self) -> list[tuple[int, int, int] | None]:
        return [signature(each) for each in self._paths]

    def _text(self) -> str:
        return ", ".join(map(str, self._paths))
