"""Models and versions in the database: rows in, records out. Functions of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, update

from penstock.store.database import insert_new, now_ms
from penstock.store.deployments import deployments_of
from penstock.store.events import record_event
from penstock.store.failures import UnknownEntryError
from penstock.store.manifest import FileEntry
from penstock.store.records import (
    Golden,
    Link,
    MetricValue,
    NewVersion,
    Reference,
    VersionRecord,
    VersionStatus,
)
from penstock.store.schema import (
    aliases,
    files,
    goldens,
    lineage,
    metrics,
    models,
    tags,
    versions,
)

__all__ = [
    "add_version",
    "aliases_of",
    "find_id",
    "load_version",
    "lock_model",
    "unknown",
]


def lock_model(connection: Connection, model: str) -> None:
    """Has others wait that change something of it; SQLite has one writer anyway.

    Comes before an environment's lock wherever there are both.
    """
    connection.execute(select(models.c.id).where(models.c.name == model).with_for_update())


def add_version(connection: Connection, new: NewVersion) -> int:
    """Adds a version and everything that is known of it; returns its number.

    Pushes of one model at the same time wait here for each other, and get a number each.
    """
    at_ms = now_ms()
    insert_new(connection, models, name=new.model, next_version=1, created_ms=at_ms)
    model_id, following = connection.execute(
        update(models)
        .where(models.c.name == new.model)
        .values(next_version=models.c.next_version + 1)
        .returning(models.c.id, models.c.next_version)
    ).one()
    number: int = following - 1
    version_id = connection.execute(
        insert(versions)
        .values(
            model_id=model_id,
            number=number,
            digest=new.digest,
            status=VersionStatus.READY.value,
            reason="",
            size_bytes=new.size_bytes,
            backend=new.backend,
            source_format=new.source_format,
            creator=new.creator,
            owner=new.owner,
            team=new.team,
            description=new.description,
            license=new.license,
            signature=new.signature,
            runtime=new.runtime,
            requirements=list(new.requirements),
            created_ms=at_ms,
            updated_ms=at_ms,
        )
        .returning(versions.c.id)
    ).scalar_one()
    _add_details(connection, version_id, new)
    record_event(
        connection,
        "pushed",
        new.creator,
        model=new.model,
        version=number,
        digest=new.digest,
        size_bytes=new.size_bytes,
    )
    return number


def _add_details(connection: Connection, version_id: int, new: NewVersion) -> None:
    rows: dict[Table, list[dict[str, Any]]] = {
        files: [
            {"path": each.path, "size_bytes": each.size_bytes, "sha256": each.sha256}
            for each in new.files
        ],
        lineage: [
            {
                "kind": link.kind,
                "position": position,
                "name": link.name,
                "revision": link.revision,
                "uri": link.uri,
                "digest": link.digest,
                "details": dict(link.details),
            }
            for position, link in enumerate(new.links)
        ],
        metrics: [
            {
                "name": each.name,
                "dataset": each.dataset,
                "dataset_digest": each.dataset_digest,
                "value": each.value,
            }
            for each in new.metrics
        ],
        goldens: [
            {"position": position, "name": each.name, "sha256": each.sha256}
            for position, each in enumerate(new.goldens)
        ],
        tags: [{"key": key, "value": value} for key, value in new.tags.items()],
    }
    for table, values in rows.items():
        if values:
            connection.execute(insert(table), [{"version_id": version_id, **row} for row in values])


def find_id(connection: Connection, reference: Reference) -> tuple[int, int]:
    """Row and number of the version that is meant; without a pointer the latest that is there.

    Raises:
        UnknownEntryError: there is none.
    """
    query = select(versions.c.id, versions.c.number).join(
        models, models.c.id == versions.c.model_id
    )
    query = query.where(models.c.name == reference.model)
    if reference.alias:
        query = query.join(aliases, aliases.c.version_id == versions.c.id)
        query = query.where(aliases.c.name == reference.alias)
    elif reference.version is not None:
        query = query.where(versions.c.number == reference.version)
    else:
        query = query.where(versions.c.status != VersionStatus.REMOVED.value)
        query = query.order_by(versions.c.number.desc()).limit(1)
    row = connection.execute(query).first()
    if row is not None:
        return row.id, row.number
    raise UnknownEntryError(unknown(connection, reference))


def unknown(connection: Connection, reference: Reference) -> str:
    """Why there is no such version."""
    count = select(func.count()).select_from(models).where(models.c.name == reference.model)
    if not connection.execute(count).scalar_one():
        return f"the store has no model '{reference.model}'"
    if reference.alias:
        known = ", ".join(f"'{each}'" for each in aliases_of(connection, reference.model))
        return f"'{reference.model}' has no alias '{reference.alias}', it has {known or 'none'}"
    if reference.version is not None:
        return f"'{reference.model}' has no version {reference.version}"
    return f"'{reference.model}' has no version that was not removed"


def aliases_of(connection: Connection, model: str) -> dict[str, int]:
    """The versions that a model's aliases point to."""
    query = (
        select(aliases.c.name, versions.c.number)
        .join(versions, versions.c.id == aliases.c.version_id)
        .join(models, models.c.id == aliases.c.model_id)
        .where(models.c.name == model)
        .order_by(aliases.c.name)
    )
    return {row.name: row.number for row in connection.execute(query)}


def load_version(connection: Connection, reference: Reference) -> VersionRecord:
    """Everything that is known of a version. Raises as `find_id` does."""
    version_id, number = find_id(connection, reference)
    row = connection.execute(select(versions).where(versions.c.id == version_id)).one()

    def rows(table: Table, order: Any) -> Sequence[Any]:
        query = select(table).where(table.c.version_id == version_id).order_by(order)
        return connection.execute(query).all()

    pointing = rows(aliases, aliases.c.name)
    return VersionRecord(
        id=version_id,
        model=reference.model,
        version=number,
        **{
            name: getattr(row, name)
            for name in (
                *("digest", "status", "reason", "backend", "source_format", "creator", "owner"),
                *("team", "description", "license", "signature", "runtime", "created_ms"),
                "updated_ms",
            )
        },
        requirements=tuple(row.requirements),
        files=tuple(
            FileEntry(each.path, each.size_bytes, each.sha256) for each in rows(files, files.c.path)
        ),
        links=tuple(
            Link(each.kind, each.name, each.revision, each.uri, each.digest, each.details)
            for each in rows(lineage, lineage.c.position)
        ),
        metrics=tuple(
            MetricValue(each.name, each.value, each.dataset, each.dataset_digest)
            for each in rows(metrics, metrics.c.name)
        ),
        goldens=tuple(Golden(each.name, each.sha256) for each in rows(goldens, goldens.c.position)),
        tags={each.key: each.value for each in rows(tags, tags.c.key)},
        aliases=tuple(each.name for each in pointing),
        deployments=tuple(deployments_of(connection, version_id=version_id)),
    )
