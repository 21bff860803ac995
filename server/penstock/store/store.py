"""Store: the door to tracked models. Each method is one transaction, or says what it is instead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from penstock.store import changes, deployments, listing, registry
from penstock.store.artifacts import Artifacts, Moved, ignore
from penstock.store.capture import user
from penstock.store.database import Database
from penstock.store.environments import StoreEnvironments
from penstock.store.events import list_events
from penstock.store.failures import RefusedError
from penstock.store.files import SourceFile
from penstock.store.home import check_room, open_artifacts
from penstock.store.location import locate
from penstock.store.manifest import Manifest
from penstock.store.records import (
    Event,
    Golden,
    NewVersion,
    Reference,
    VersionRecord,
    VersionStatus,
    VersionSummary,
    check_alias,
    check_name,
)
from penstock.store.verification import Verification, faults_of

if TYPE_CHECKING:
    from penstock.store.listener import DeploymentListener

__all__ = ["Store", "Verification", "open_store"]


@contextmanager
def open_store(url: str, *, may_create: bool = False, actor: str = "") -> Iterator[Store]:
    """A store, closed at the end.

    Args:
        url: as `penstock.store.location.locate` has it.
        may_create: it is made where there is none.
        actor: of events; "" = `user()`.

    Raises:
        StoreError: it cannot be opened.
    """
    store = Store(url, actor=actor or user())
    try:
        store.open(may_create=may_create)
        yield store
    finally:
        store.close()


class Store(StoreEnvironments):
    """Tracked models.

    Threading: thread-safe. Blocking: every method. Ownership: its connections.
    Lifecycle: constructed -> open -> ... -> close; `upgrade` before open.
    """

    def __init__(self, url: str, *, actor: str) -> None:
        """Reads the URL; connects to nothing yet."""
        self._location = locate(url)
        self.shown = self._location.shown
        super().__init__(Database(self._location), actor)
        self._artifacts: Artifacts | None = None

    @property
    def artifacts(self) -> Artifacts:
        """Where the bytes are; after `open`."""
        assert self._artifacts is not None, "open comes first"
        return self._artifacts

    def open(self, *, may_create: bool = False) -> None:
        """Checks the schema and finds the bytes.

        Raises:
            StoreError: it cannot be reached, is not there and may not be made, is of another
                version of the schema, or its artifacts are another store's.
        """
        self.database.open(may_create=may_create)
        self._artifacts = open_artifacts(self.database, self._location, may_create)

    def listener(
        self, environment: str, on_change: Callable[[], None]
    ) -> DeploymentListener | None:
        """What tells of deployments at once, where the database can: PostgreSQL."""
        if not self.database.is_postgresql:
            return None
        from penstock.store.listener import DeploymentListener

        return DeploymentListener(self._location.database, environment, on_change)

    def close(self) -> None:
        """Closes connections."""
        self.database.close()

    def upgrade(self) -> None:
        """Brings an older store to this version's schema.

        Raises:
            StoreError: it cannot be reached, there is none, or it is of a newer version.
        """
        self.database.upgrade()

    def push(
        self,
        files: Sequence[SourceFile],
        describe: Callable[[Manifest], NewVersion],
        goldens: Mapping[str, bytes] | None = None,
        aliases: Sequence[str] = (),
        moved: Moved = ignore,
    ) -> VersionRecord:
        """Takes a version: its bytes first, and when they are durable, the rows that name them.

        Killed at any point it leaves all of it or nothing that can be seen.

        Args:
            files: what the artifact is made of.
            describe: what is known of it, once its manifest is.
            goldens: golden requests by name.
            aliases: that point to it from the same moment on.
            moved: is told of bytes of the files that were stored.

        Raises:
            RefusedError: a file or a name is not allowed.
            StoreError: it cannot be stored; nothing of it can be seen.
        """
        for alias in aliases:
            check_alias(alias)
        check_room(self.artifacts, files)
        with self.artifacts.adding() as confirm:
            manifest = self.artifacts.add(files, moved)
            kept = tuple(
                Golden(name, self.artifacts.add_bytes(content))
                for name, content in (goldens or {}).items()
            )
            new = replace(describe(manifest), goldens=kept)
            check_name("model", new.model)
            with self.database.write() as connection:
                number = registry.add_version(connection, new)
                for alias in aliases:
                    self._point(connection, new.model, alias, number)
                confirm(connection)
                return registry.load_version(connection, Reference(new.model, number))

    def show(self, reference: Reference) -> VersionRecord:
        """Everything that is known of a version."""
        with self.database.read() as connection:
            return registry.load_version(connection, reference)

    def children(self, record: VersionRecord) -> list[VersionRecord]:
        """Versions that were made from it."""
        with self.database.read() as connection:
            found = listing.children_of(connection, record.model, record.version)
            return [registry.load_version(connection, each) for each in found]

    def resolve(self, reference: Reference) -> int:
        """The number of the version that is meant."""
        with self.database.read() as connection:
            return registry.find_id(connection, reference)[1]

    def models(self) -> list[VersionSummary]:
        """Every model: its latest version, its aliases and where it serves."""
        with self.database.read() as connection:
            return listing.list_models(connection)

    def versions(self, model: str, limit: int = 1 << 31) -> list[VersionSummary]:
        """The latest versions of a model, newest first."""
        with self.database.read() as connection:
            return listing.list_versions(connection, model, limit)

    def log(
        self,
        *,
        model: str = "",
        version: int | None = None,
        environment: str = "",
        limit: int = 100,
    ) -> Sequence[Event]:
        """The latest events, oldest first."""
        with self.database.read() as connection:
            return list_events(
                connection, model=model, version=version, environment=environment, limit=limit
            )

    def alias(self, model: str, alias: str, version: int | None) -> int | None:
        """Points an alias to a version, or takes it away; returns where it pointed before.

        Environments that follow the alias are asked for the version in the same moment.
        """
        check_alias(alias)
        with self._changing(model) as connection:
            return self._point(connection, model, alias, version)

    def tag(self, reference: Reference, wanted: Mapping[str, str | None]) -> VersionRecord:
        """Sets tags of a version; None takes one away."""
        with self._changing(reference.model) as connection:
            record = registry.load_version(connection, reference)
            changes.set_tags(connection, record, wanted, self.actor)
            return registry.load_version(connection, reference)

    def archive(self, reference: Reference, *, undo: bool = False) -> VersionRecord:
        """Keeps a version from being deployed, or lets it be again.

        Raises:
            RefusedError: it serves somewhere, or is in another state than that.
        """
        wanted = VersionStatus.ARCHIVED if undo else VersionStatus.READY
        with self._changing(reference.model) as connection:
            record = registry.load_version(connection, reference)
            if record.status != wanted:
                raise RefusedError(f"{record.reference} is {record.status.lower()}")
            changes.check_not_needed(record, "archived")
            status = VersionStatus.READY if undo else VersionStatus.ARCHIVED
            changes.set_status(connection, record.id, status, "", self.actor)
            return registry.load_version(connection, Reference(record.model, record.version))

    def remove(self, reference: Reference) -> VersionRecord:
        """Removes a version's bytes, as far as no other needs them; what is known of it stays.

        Raises:
            RefusedError: it serves somewhere, an alias points to it, or it was removed before.
        """
        with self._changing(reference.model) as connection:
            record = registry.load_version(connection, reference)
            if record.status == VersionStatus.REMOVED:
                raise RefusedError(f"{record.reference} is removed")
            changes.check_not_needed(record, "removed")
            if record.aliases:
                names = ", ".join(f"'{each}'" for each in record.aliases)
                raise RefusedError(f"{record.reference} cannot be removed: it is {names}")
            changes.set_status(connection, record.id, VersionStatus.REMOVED, "", self.actor)
        self._clean(record.blobs)
        return self.show(Reference(record.model, record.version))

    def clean(self, min_age_s: float = 0, *, only_pushed: bool = False) -> int:
        """Removes blobs that no version needs, unless somebody pushes; returns how many.

        Args:
            min_age_s: what was written since is left alone.
            only_pushed: so is what was not pushed by this object. A database that is a copy of
                another does not know what that one has pushed since, to the same place.
        """
        return self._clean(self.artifacts.made if only_pushed else None, min_age_s)

    def _clean(self, only: Collection[str] | None, min_age_s: float = 0) -> int:
        wanted: set[str] | None = None

        def is_wanted(sha256: str) -> bool:
            nonlocal wanted
            if wanted is None:  # read once nobody can add any more
                with self.database.read() as connection:
                    wanted = listing.wanted_blobs(connection)
            return sha256 in wanted

        return len(self.artifacts.clean(is_wanted, min_age_s=min_age_s, only=only))

    def verify(self, reference: Reference) -> Verification:
        """Hashes a version's bytes anew. What is not as pushed is put aside, and an event tells it.

        A version that was put aside and whose bytes are whole again is what it was before.
        """
        record = self.show(reference)
        if record.status == VersionStatus.REMOVED:
            return Verification(record.reference, record.digest, record.status)
        faults = tuple(faults_of(self.artifacts, record))
        with self._changing(record.model) as connection:
            status = changes.judge(connection, record, faults, self.actor)
        return Verification(record.reference, record.digest, status, faults)

    def quarantine(self, record: VersionRecord, reason: str) -> None:
        """Marks a version whose bytes somebody found not to be those that were pushed."""
        with self._changing(record.model) as connection:
            changes.judge(connection, record, (reason,), self.actor)

    def _point(
        self, connection: Connection, model: str, alias: str, version: int | None
    ) -> int | None:
        before = changes.set_alias(connection, model, alias, version, self.actor)
        if version is None or before == version:
            return before
        for each in deployments.following(connection, model, alias):
            deployments.request(
                connection,
                each.environment,
                model=model,
                version=version,
                kind="alias",
                alias=alias,
                actor=self.actor,
            )
        return before
