"""Brings the store's database to the schema of this version, or back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from penstock.store.failures import RefusedError

if TYPE_CHECKING:  # Alembic takes a third of a command's start, and few commands need it
    from alembic.config import Config
    from alembic.script import ScriptDirectory

__all__ = ["HEAD", "ensure_current", "migrate", "upgrade"]

logging.getLogger("alembic").setLevel(logging.WARNING)  # else each start tells of its set-up

_NO_STORE = "there is no store yet: the first `penstock push` makes it"
_SCRIPTS = Path(__file__).parent / "migrations"
HEAD = "0001"
"""The revision that this version reads and writes: a constant, since each command asks."""


def ensure_current(connection: Connection, *, may_create: bool) -> None:
    """Sees to it that the schema is this version's.

    Args:
        connection: in a transaction that others wait for.
        may_create: an empty database is given its tables.

    Raises:
        RefusedError: it is of another version, or empty and may not be filled.
    """
    revision = _revision(connection)
    if revision == HEAD:
        return
    if revision is not None:
        raise RefusedError("the store is of an older version: run `penstock store upgrade`")
    if not may_create:
        raise RefusedError(_NO_STORE)
    migrate(connection, HEAD)


def upgrade(connection: Connection) -> None:
    """Brings an older store to this version's schema.

    Raises:
        RefusedError: there is none, or it is of a newer version.
    """
    if _revision(connection) is None:
        raise RefusedError(_NO_STORE)
    migrate(connection, HEAD)


def _revision(connection: Connection) -> str | None:
    """The schema's; None: the database is empty.

    Raises:
        RefusedError: it is one that is not known, or the tables are something else's.
    """
    revision = _recorded_revision(connection)
    if revision == HEAD:
        return revision
    if revision is not None:
        if revision not in {each.revision for each in _scripts().walk_revisions()}:
            raise RefusedError("the store was made by a newer version of penstock")
        return revision
    if set(inspect(connection).get_table_names()) - {"alembic_version"}:
        raise RefusedError("the database has tables of something else: a store needs its own")
    return None


def _recorded_revision(connection: Connection) -> str | None:
    """What Alembic has written down; None: it was never here, or has gone back to the beginning."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def migrate(connection: Connection, revision: str) -> None:
    """Goes up or down to a revision; "base" is empty."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    current = _recorded_revision(connection)
    is_down = revision == "base" or (current is not None and revision < current)
    (command.downgrade if is_down else command.upgrade)(config, revision)


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())
