"""Where the artifacts of a store are, and whether there is room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from penstock.store.artifacts import ArtifactDirectory
from penstock.store.database import Database
from penstock.store.failures import RefusedError, StoreError
from penstock.store.files import SourceFile, os_failure
from penstock.store.location import Location
from penstock.store.registry import insert_new
from penstock.store.schema import settings

__all__ = ["artifacts_of", "check_room"]

_ARTIFACTS = "artifacts"


def artifacts_of(database: Database, location: Location, may_create: bool) -> Path:
    """The directory: beside an SQLite database, or where a PostgreSQL database says.

    Raises:
        RefusedError: the database does not know, or knows of another than the URL.
    """
    given = location.artifacts
    if location.sqlite_path is not None and given is not None:
        return given
    with database.read() as connection:
        query = select(settings.c.value).where(settings.c.key == _ARTIFACTS)
        known = connection.execute(query).scalar()
    if known is None and given is not None and may_create:
        with database.write() as connection:
            insert_new(connection, settings, key=_ARTIFACTS, value=str(given.absolute()))
            known = connection.execute(query).scalar()
    if known is None:
        raise RefusedError(
            f"the store at '{location.shown}' does not know where its artifacts are: add "
            "?artifacts=DIR to the URL of the first push"
        )
    if given is not None and given.absolute() != Path(known):
        raise RefusedError(f"the artifacts of the store at '{location.shown}' are in '{known}'")
    return Path(known)


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
