"""Locks between those who add to a bucket and those who clean it, which has none of its own.

SQLite is one host's: a lock of a file beside the database. PostgreSQL: an advisory lock, held by a
connection of its own; should that break, whoever adds finds out before it commits.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from penstock.store.artifacts import Confirm
from penstock.store.database import Database
from penstock.store.failures import StoreUnavailableError
from penstock.store.files import os_failure

__all__ = ["AddingLock", "make_lock"]

_LOCK_ID = 0x70656E74
_POLL_S = 0.2
_PATIENCE_S = 600.0


class AddingLock(Protocol):
    """Shared by whoever adds, exclusive for whoever cleans. Thread-safe, and among processes."""

    def shared(self) -> AbstractContextManager[Confirm]:
        """Waits for a cleaner."""

    def exclusive(self, *, waits: bool) -> AbstractContextManager[bool]:
        """Whether it is had: without `waits` not while somebody adds.

        Raises:
            StoreUnavailableError: waiting took too long.
        """


def make_lock(database: Database) -> AddingLock:
    """The one of a database."""
    path = database.sqlite_path
    return _AdvisoryLock(database) if path is None else _FileLock(path.with_suffix(".lock"))


class _FileLock:
    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def shared(self) -> Iterator[Confirm]:
        with self._locked(fcntl.LOCK_SH):
            yield lambda _: None

    @contextmanager
    def exclusive(self, *, waits: bool) -> Iterator[bool]:
        with self._locked(fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB)) as is_had:
            yield is_had

    @contextmanager
    def _locked(self, operation: int) -> Iterator[bool]:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise os_failure("cannot lock the store", error) from error
        try:
            try:
                fcntl.flock(descriptor, operation)
                is_had = True
            except BlockingIOError:
                is_had = False
            yield is_had
        finally:
            os.close(descriptor)


class _AdvisoryLock:
    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def shared(self) -> Iterator[Confirm]:
        with self._database.session() as session:
            session.execute(text(f"SELECT pg_advisory_lock_shared({_LOCK_ID})"))

            def confirm(connection: Connection) -> None:
                # From here on until the end of the transaction nobody cleans; if nobody could
                # since the beginning, either, all that was added is there.
                connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_LOCK_ID})"))
                try:
                    session.execute(text("SELECT 1"))
                except SQLAlchemyError as error:
                    raise StoreUnavailableError(
                        "the database went away during the push: what was uploaded may have been "
                        "cleaned away; push again"
                    ) from error

            yield confirm

    @contextmanager
    def exclusive(self, *, waits: bool) -> Iterator[bool]:
        with self._database.session() as session:
            # Never queued: whoever adds would wait behind us in `confirm`, and we for them.
            taken = text(f"SELECT pg_try_advisory_lock({_LOCK_ID})")
            pause, until = threading.Event(), time.monotonic() + _PATIENCE_S
            while not (is_had := bool(session.execute(taken).scalar_one())) and waits:
                if time.monotonic() >= until:
                    raise StoreUnavailableError(
                        f"somebody has added to the store for {_PATIENCE_S:g} s: try again later"
                    )
                pause.wait(_POLL_S)
            yield is_had
