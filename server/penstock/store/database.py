"""Database: what differs between SQLite and PostgreSQL, and failures that say what is wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from penstock.store.failures import RefusedError, StoreError, StoreUnavailableError
from penstock.store.location import Location
from penstock.store.migrate import ensure_current, upgrade

__all__ = ["Database", "insert_new", "insert_or_update", "now_ms"]

_LOCK_ID = 0x70656E73  # of the advisory lock that migrations take
_BUSY_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 30_000
_WRITES = "penstock_writes"
_REPLACING = "recursive_triggers=ON"
"""INSERT OR REPLACE deletes: only with it is the trigger asked that keeps events."""


def now_ms() -> int:
    """Milliseconds since 1970, for records that people read."""
    return time.time_ns() // 1_000_000


def insert_new(connection: Connection, table: Table, **values: Any) -> None:
    """Inserts a row, unless one of the same key is there."""
    connection.execute(_insert(connection, table).values(**values).on_conflict_do_nothing())


def insert_or_update(
    connection: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Inserts a row, or gives the one of this key the values."""
    row = _insert(connection, table).values(**key, **values)
    connection.execute(row.on_conflict_do_update(index_elements=list(key), set_=values))


def _insert(connection: Connection, table: Table) -> Any:
    """Of the dialect, which knows of conflicts; importing the other's would only cost a start."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)


class Database:
    """Connections to one database.

    Threading: thread-safe; a connection is its thread's. Blocking: every method.
    Lifecycle: constructed -> open -> (read | write)* -> close.
    """

    def __init__(self, location: Location) -> None:
        """Connects to nothing yet."""
        self._location = location
        self._engine = _make_engine(location)
        self.sqlite_path = location.sqlite_path
        self.is_postgresql = location.sqlite_path is None

    def open(self, *, may_create: bool = False) -> None:
        """Checks that the schema is this version's.

        Raises:
            RefusedError: there is no store and none may be made, or it is another version's.
            StoreUnavailableError: it cannot be reached.
        """
        path = self._location.sqlite_path
        if path is not None and not path.exists():
            if not may_create or path.parent.is_file():
                raise self._no_store(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailableError(
                    f"cannot make '{self._location.shown}': {(error.strerror or '').lower()}"
                ) from error
        with self.write() if may_create else self.read() as connection:
            if may_create:
                self._lock(connection)
            ensure_current(connection, may_create=may_create)

    def upgrade(self) -> None:
        """Brings an older store to this version's schema. Raises as `open` does."""
        path = self._location.sqlite_path
        if path is not None and not path.exists():
            raise self._no_store(path)
        with self.write() as connection:
            self._lock(connection)
            upgrade(connection)

    def _lock(self, connection: Connection) -> None:
        """Has other migrations wait; SQLite has one writer anyway."""
        if self.is_postgresql:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_ID})"))

    def _no_store(self, path: Path) -> RefusedError:
        shown = self._location.shown
        if path.parent.is_file():
            return RefusedError(
                f"'{path.parent}' is a file, and no store: expected a directory, or sqlite:///FILE "
                "for the database of one"
            )
        return RefusedError(f"there is no store at '{shown}': the first `penstock push` makes it")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: all of it as of one moment."""
        with self._failures(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; committed, and durable, when the block ends without an exception."""
        with self._failures(), self._engine.connect() as connection:
            writing = connection.execution_options(**{_WRITES: True})
            with writing.begin():
                yield writing

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection without a transaction, closed at the end: for locks of PostgreSQL's."""
        with self._failures(), self._engine.connect() as connection:
            session = connection.execution_options(isolation_level="AUTOCOMMIT")
            session.detach()  # not used by anyone after this
            session.execute(text("SET statement_timeout = 0"))  # a lock may be waited for
            yield session

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        self._engine.dispose()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _failure(self._location.shown, error) from error
        except SQLAlchemyError as error:
            raise StoreError(f"the store at '{self._location.shown}': {error}") from error


def _make_engine(location: Location) -> Engine:
    if location.sqlite_path is None:
        return create_engine(
            location.database,
            pool_size=2,
            max_overflow=4,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "application_name": "penstock",
                "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
                # a server that is cut off is noticed
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": _STATEMENT_TIMEOUT_MS,
            },
        )
    engine = create_engine(
        location.database, poolclass=NullPool, connect_args={"timeout": _BUSY_TIMEOUT_S}
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", _REPLACING):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer waits for others at its beginning: one that began to read first would fail."""
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _failure(shown: str, error: DBAPIError) -> StoreError:
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason"
    if isinstance(error.orig, sqlite3.DatabaseError):
        number = getattr(error.orig, "sqlite_errorcode", None)
        if number is not None and number & 0xFF == sqlite3.SQLITE_NOTADB:
            return RefusedError(f"'{shown}' is not the database of a store: {reason}")
        if number is not None and number & 0xFF == sqlite3.SQLITE_FULL:
            return StoreError(f"the store at '{shown}': {reason}; nothing was changed")
        if number is not None and number & 0xFF == sqlite3.SQLITE_READONLY:
            return StoreUnavailableError(
                f"no permission to write the store at '{shown}', which readers need as well: "
                f"SQLite keeps its locks in files beside the database ({reason})"
            )
    is_away = error.connection_invalidated or type(error).__name__ in (
        "OperationalError",
        "InterfaceError",
    )
    if is_away:
        return StoreUnavailableError(
            f"the database of the store at '{shown}' does not answer: {reason}"
        )
    return StoreError(f"the database of the store at '{shown}' refuses: {reason}")
