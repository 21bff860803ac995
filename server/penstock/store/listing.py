"""Lists of models and versions, and of the blobs they need. Functions of a transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, literal, select

from penstock.store.deployments import environments_serving
from penstock.store.records import Reference, VersionStatus, VersionSummary
from penstock.store.registry import aliases_of, find_id
from penstock.store.schema import aliases, files, goldens, lineage, models, versions

__all__ = ["children_of", "list_models", "list_versions", "wanted_blobs"]


def list_models(connection: Connection) -> list[VersionSummary]:
    """The latest version of each model, with all aliases and environments of the model."""
    latest = (
        select(versions.c.model_id, func.max(versions.c.number).label("number"))
        .group_by(versions.c.model_id)
        .subquery()
    )
    query = (
        select(*_columns(models.c.name))
        .join(models, models.c.id == versions.c.model_id)
        .join(
            latest,
            (latest.c.model_id == versions.c.model_id) & (latest.c.number == versions.c.number),
        )
    )
    pointers: defaultdict[str, list[str]] = defaultdict(list)
    known = (
        select(models.c.name, aliases.c.name.label("alias"), versions.c.number)
        .join(aliases, aliases.c.model_id == models.c.id)
        .join(versions, versions.c.id == aliases.c.version_id)
    )
    for row in connection.execute(known.order_by(aliases.c.name)):
        pointers[row.name].append(f"{row.alias}={row.number}")
    serving: defaultdict[str, list[str]] = defaultdict(list)
    for (model, number), environments in environments_serving(connection).items():
        serving[model] += [f"{each}={number}" for each in environments]
    rows: Sequence[Any] = connection.execute(query.order_by(models.c.name)).all()
    return [
        VersionSummary._make((*row, tuple(pointers[row[0]]), tuple(serving[row[0]])))
        for row in rows
    ]


def list_versions(connection: Connection, model: str, limit: int) -> list[VersionSummary]:
    """The latest versions of a model, newest first.

    Raises:
        UnknownEntryError: there is no such model.
    """
    find_id(connection, Reference(model))
    known = select(models.c.id).where(models.c.name == model).scalar_subquery()
    query = select(*_columns(literal(model))).where(versions.c.model_id == known)
    query = query.order_by(versions.c.number.desc()).limit(limit)
    found = [VersionSummary(*row) for row in connection.execute(query).all()]
    pointers: defaultdict[int, list[str]] = defaultdict(list)
    for alias, number in aliases_of(connection, model).items():
        pointers[number].append(alias)
    serving = {
        number: each for (_, number), each in environments_serving(connection, model).items()
    }
    marked = pointers.keys() | serving.keys()  # few of many
    return [
        each._replace(
            aliases=tuple(pointers.get(each.version, ())),
            environments=tuple(serving.get(each.version, ())),
        )
        if each.version in marked
        else each
        for each in found
    ]


def children_of(connection: Connection, model: str, version: int) -> list[Reference]:
    """Versions that name this one as their parent."""
    query = (
        select(models.c.name, versions.c.number)
        .join(versions, versions.c.model_id == models.c.id)
        .join(lineage, lineage.c.version_id == versions.c.id)
        .where(
            lineage.c.kind == "parent",
            lineage.c.name == model,
            lineage.c.revision == str(version),
        )
        .order_by(models.c.name, versions.c.number)
    )
    return [Reference(row.name, row.number) for row in connection.execute(query)]


def wanted_blobs(connection: Connection) -> set[str]:
    """The SHA-256 of every blob that a version needs which was not removed."""
    kept = select(versions.c.id).where(versions.c.status != VersionStatus.REMOVED.value)
    wanted = {
        row.digest.removeprefix("sha256:")
        for row in connection.execute(select(versions.c.digest).where(versions.c.id.in_(kept)))
    }
    for table in (files, goldens):
        query = select(table.c.sha256).where(table.c.version_id.in_(kept))
        wanted |= {row.sha256 for row in connection.execute(query)}
    return wanted


def _columns(model: Any) -> Sequence[Any]:
    """Of a `VersionSummary`, but for what points to it."""
    return (
        model,
        versions.c.number,
        versions.c.digest,
        versions.c.status,
        versions.c.backend,
        versions.c.owner,
        versions.c.size_bytes,
        versions.c.created_ms,
    )
