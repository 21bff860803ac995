"""Where the artifacts of a store are, and whether there is room."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from penstock.store.artifacts import ArtifactDirectory
from penstock.store.database import Database
from penstock.store.failures import RefusedError, StoreError, StoreUnavailableError
from penstock.store.files import SourceFile, os_failure
from penstock.store.location import ARTIFACTS, Location
from penstock.store.registry import insert_new
from penstock.store.schema import settings

__all__ = ["check_room", "open_artifacts"]

_ARTIFACTS = "artifacts"
_ID = "store_id"
_CLAIMED = "artifacts_claimed"


def open_artifacts(database: Database, location: Location, may_create: bool) -> ArtifactDirectory:
    """The directory of a store's bytes, which is its own: others would clean them away.

    Where it cannot be reached it is returned all the same: whoever needs bytes is told.

    Raises:
        RefusedError: it is another store's, or the database does not know where it is.
        StoreUnavailableError: it is to be made, and cannot be.
    """
    root = artifacts_of(database, location, may_create)
    if may_create:
        with database.write() as connection:
            insert_new(connection, settings, key=_ID, value=secrets.token_hex(16))
    known = _settings(database)
    if _ID not in known:
        raise RefusedError(
            f"the store at '{location.shown}' was not made to the end: the next push does it"
        )
    artifacts = ArtifactDirectory(root, known[_ID])
    if may_create and _CLAIMED not in known:
        artifacts.claim()
        with database.write() as connection:
            insert_new(connection, settings, key=_CLAIMED, value="yes")
    try:
        artifacts.check_there()
    except StoreUnavailableError:
        if may_create:
            raise
    return artifacts


def artifacts_of(database: Database, location: Location, may_create: bool) -> Path:
    """The directory that the database says; of SQLite relative to it: the store may be moved.

    Raises:
        RefusedError: the database does not know, or knows of another than the URL.
    """
    given = location.artifacts and Path(os.path.abspath(location.artifacts))
    file = location.sqlite_path
    base = Path(os.path.abspath(file)).parent if file is not None else Path("/")
    known = _settings(database).get(_ARTIFACTS)
    if known is None and given is not None and may_create:
        is_beside = file is not None and given.is_relative_to(base)
        wanted = str(given.relative_to(base) if is_beside else given)
        with database.write() as connection:
            insert_new(connection, settings, key=_ARTIFACTS, value=wanted)
        known = _settings(database)[_ARTIFACTS]
    if known is None:
        raise RefusedError(
            f"the store at '{location.shown}' does not know where its artifacts are: add "
            "?artifacts=DIR to the URL of the first push"
        )
    root = base / known
    is_default = file is not None and given == base / ARTIFACTS
    if given is not None and given != root and not is_default:
        raise RefusedError(f"the artifacts of the store at '{location.shown}' are in '{root}'")
    return root


def _settings(database: Database) -> dict[str, str]:
    with database.read() as connection:
        rows = connection.execute(select(settings.c.key, settings.c.value)).all()
    return {row.key: row.value for row in rows}


def check_room(artifacts: ArtifactDirectory, files: Sequence[SourceFile]) -> None:
    """A push that cannot fit is refused before it fills the disk for everyone else.

    Raises:
        StoreError: it cannot fit.
    """
    needed = 0
    for each in files:
        try:
            is_here = isinstance(each.source, bytes)
            needed += len(each.source) if is_here else each.source.stat().st_size  # type: ignore
        except OSError as error:
            raise os_failure(f"cannot read '{each.path}'", error) from error
    free = artifacts.free_bytes()
    if needed > free:
        raise StoreError(f"the artifacts have no room: {needed} bytes needed, {free} free")
