"""Where the artifacts of a store are, a directory or a bucket, and whether there is room."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from penstock.store.artifacts import Artifacts
from penstock.store.database import Database, insert_new
from penstock.store.directory import ArtifactDirectory
from penstock.store.failures import RefusedError, StoreError, StoreUnavailableError
from penstock.store.files import SourceFile, os_failure
from penstock.store.location import ARTIFACTS, Location, is_bucket, without_credentials
from penstock.store.schema import settings

__all__ = ["check_room", "open_artifacts", "size_of"]

_ARTIFACTS = "artifacts"
_ID = "store_id"
_CLAIMED = "artifacts_claimed"


def open_artifacts(database: Database, location: Location, may_create: bool) -> Artifacts:
    """The place of a store's bytes, which is its own: others would clean them away.

    Where it cannot be reached it is returned all the same: whoever needs bytes is told.

    Raises:
        RefusedError: it is another store's, or the database does not know where it is.
        StoreUnavailableError: it is to be made, and cannot be.
    """
    place = artifacts_of(database, location, may_create)
    if may_create:
        with database.write() as connection:
            insert_new(connection, settings, key=_ID, value=secrets.token_hex(16))
    known = _settings(database)
    if _ID not in known:
        raise RefusedError(
            f"the store at '{location.shown}' was not made to the end: the next push does it"
        )
    artifacts = _open(database, place, known[_ID])
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


def _open(database: Database, place: Path | str, owner: str) -> Artifacts:
    if isinstance(place, Path):
        return ArtifactDirectory(place, owner)
    from penstock.store.adding_lock import make_lock
    from penstock.store.bucket import open_bucket
    from penstock.store.objects import ArtifactObjects

    return ArtifactObjects(open_bucket(place), owner, make_lock(database))


def artifacts_of(database: Database, location: Location, may_create: bool) -> Path | str:
    """The place that the database says; a directory of SQLite's relative to it: it may be moved.

    Raises:
        RefusedError: the database does not know, or knows of another than the URL.
    """
    given = location.artifacts
    if isinstance(given, Path):
        given = Path(os.path.abspath(given))
    file = location.sqlite_path
    base = Path(os.path.abspath(file)).parent if file is not None else Path("/")
    known = _settings(database).get(_ARTIFACTS)
    if known is None and given is not None and may_create:
        wanted = str(given)
        if isinstance(given, Path) and file is not None and given.is_relative_to(base):
            wanted = str(given.relative_to(base))
        with database.write() as connection:
            insert_new(connection, settings, key=_ARTIFACTS, value=wanted)
        known = _settings(database)[_ARTIFACTS]
    if known is None:
        raise RefusedError(
            f"the store at '{location.shown}' does not know where its artifacts are: add "
            "?artifacts=DIR or ?artifacts=s3://BUCKET/PREFIX to the URL of the first push"
        )
    place = known if is_bucket(known) else base / known
    is_default = file is not None and given == base / ARTIFACTS
    if given is not None and given != place and not is_default:
        raise RefusedError(
            f"the artifacts of the store at '{location.shown}' are in "
            f"'{without_credentials(str(place))}'"
        )
    return place


def _settings(database: Database) -> dict[str, str]:
    with database.read() as connection:
        rows = connection.execute(select(settings.c.key, settings.c.value)).all()
    return {row.key: row.value for row in rows}


def check_room(artifacts: Artifacts, files: Sequence[SourceFile]) -> None:
    """A push that cannot fit is refused before it fills the disk for everyone else.

    Raises:
        StoreError: it cannot fit.
    """
    needed = size_of(files)
    free = artifacts.free_bytes()
    if free is not None and needed > free:
        raise StoreError(f"the artifacts have no room: {needed} bytes needed, {free} free")


def size_of(files: Sequence[SourceFile]) -> int:
    """Bytes of what is to be stored.

    Raises:
        StoreError: a file cannot be read.
    """
    needed = 0
    for each in files:
        try:
            is_here = isinstance(each.source, bytes)
            needed += len(each.source) if is_here else each.source.stat().st_size  # type: ignore
        except OSError as error:
            raise os_failure(f"cannot read '{each.path}'", error) from error
    return needed
