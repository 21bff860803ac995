"""EnginePlaces: the directories of engines on this machine's disk, within a bound.

::

    DIGEST/          an engine and what it was made of (flock: exclusive while it is built)
    DIGEST/in-use    flock: shared while a server builds it, loads it or serves with it
    .removed-N/      what is being removed
    timings          of builds before; it is not counted

Servers may share them. What nobody uses goes, that which was not used for longest first; what is in
use stays, even over the bound. It is kept from removal, not from being built anew: a place is named
by what was asked for, not by the model's bytes, the kind of device or TensorRT's version, and a
load for which these are others replaces its plan. Who serves has read theirs, but reads what is
there by then in a worker that starts again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path

from penstock.folders import is_at, lock_now, modified_ns, size_of

_IN_USE = "in-use"
_PLACE = re.compile(r"[0-9a-f]{64}")
_REMOVED = ".removed-"
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)

_log = logging.getLogger("penstock.engines")


class EngineInUse:
    """An engine that no server removes as long as somebody refers to this, and has not let go."""

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        """`path` is its plan's; `descriptor`, which is locked, is closed in the end."""
        self.path = path
        self._end: Callable[[], object] | None = None
        if descriptor is not None:
            self._end = weakref.finalize(self, _end_use, path.parent, descriptor)

    def let_go(self) -> None:
        """It may be removed, and goes last."""
        if self._end is not None:
            self._end()


class _Removal(Enum):
    DONE = "done"
    GONE = "gone"  # by another server
    REFUSED = "refused"  # it is used or built, or not ours to remove


class EnginePlaces:
    """Has engines stay while they are used, and others go.

    Threading: thread-safe. Blocking: every method but `stats`; `prune` and `discard` remove files.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Touches nothing yet.

        Args:
            directory: of the cache.
            max_bytes: of all engines; 0 = no bound.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._pruning = threading.Lock()
        self._bytes: int | None = None  # when they were counted last
        self._removed = 0
        self._is_refusal_told = False

    def use(self, name: str, plan: str) -> EngineInUse:
        """The place of that name, which is made if need be; it goes last.

        Where its `in-use` is not there and this user may not make it, nothing keeps whoever may
        write there from removing it.

        Raises:
            OSError: it cannot be made.
        """
        place = self._directory / name
        self._directory.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                place.mkdir()
            try:
                descriptor = os.open(place / _IN_USE, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC)
            except FileNotFoundError:  # another server removed the place
                continue
            except OSError as error:
                if error.errno in _NOT_WRITABLE:
                    return EngineInUse(place / plan)
                raise
            engine = EngineInUse(place / plan, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if is_at(descriptor, place / _IN_USE):
                with suppress(OSError):  # another's directory, which we may only read
                    os.utime(place)
                return engine
            engine.let_go()

    def discard(self, engine: EngineInUse) -> None:
        """Lets go of an engine that was not built; its place goes if there is nothing in it."""
        engine.let_go()
        self._remove(engine.path.parent, only_empty=True)

    def prune(self) -> None:
        """Removes what was not used for longest until the rest is within the bound."""
        with self._pruning:
            try:
                self._prune()
            except OSError as error:
                _log.warning("the cache of engines cannot be looked through: %s", error.strerror)

    def stats(self) -> Mapping[str, int] | None:
        """`bytes` when they were counted last, and `removed` engines; None: nothing was used."""
        return None if self._bytes is None else {"bytes": self._bytes, "removed": self._removed}

    def _prune(self) -> None:
        entries = list(self._directory.iterdir())
        for left in (each for each in entries if each.name.startswith(_REMOVED)):
            shutil.rmtree(left, ignore_errors=True)  # by a server that was killed
        places = [each for each in entries if _PLACE.fullmatch(each.name)]
        sizes = {each: size_of(each) for each in sorted(places, key=modified_ns)}
        total = sum(sizes.values())
        for place, size_bytes in sizes.items():
            if not self._max_bytes or total <= self._max_bytes:
                break
            removal = self._remove(place)
            if removal is not _Removal.REFUSED:
                total -= size_bytes
            if removal is _Removal.DONE:
                self._removed += 1
                _log.info("an engine of %d bytes that was not used for longest goes", size_bytes)
        self._bytes = total
        if self._max_bytes and total > self._max_bytes:
            _log.warning(
                "engines that are in use or not to be removed take %d bytes of the cache, more "
                "than the %d that it may have",
                *(total, self._max_bytes),
            )

    def _remove(self, place: Path, *, only_empty: bool = False) -> _Removal:
        """Unless somebody uses or builds it, be it a child that cannot be ended."""
        aside = self._directory / f"{_REMOVED}{secrets.token_hex(16)}"
        try:
            with ExitStack() as opened:
                in_use = _open(place / _IN_USE, os.O_CREAT, opened)
                directory = _open(place, os.O_DIRECTORY, opened)
                if not lock_now(in_use):
                    return _Removal.REFUSED
                if not is_at(in_use, place / _IN_USE):
                    return _Removal.GONE
                if not lock_now(directory) or (only_empty and os.listdir(place) != [_IN_USE]):
                    return _Removal.REFUSED
                os.rename(place, aside)
        except FileNotFoundError:
            return _Removal.GONE
        except OSError as error:
            if not self._is_refusal_told:
                self._is_refusal_told = True
                _log.warning("an engine cannot be removed from the cache: %s", error.strerror)
            return _Removal.REFUSED
        shutil.rmtree(aside, ignore_errors=True)
        return _Removal.DONE


def _open(path: Path, flags: int, opened: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | flags | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return descriptor


def _end_use(place: Path, descriptor: int) -> None:
    with suppress(OSError):  # another's directory
        os.utime(place)
    os.close(descriptor)  # and with it the lock
