"""What may change of a version: aliases, tags and status. Functions of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from penstock.store.database import insert_or_update, now_ms
from penstock.store.events import list_events, record_event
from penstock.store.failures import RefusedError, UnknownEntryError
from penstock.store.records import Reference, VersionRecord, VersionStatus
from penstock.store.registry import aliases_of, find_id, unknown
from penstock.store.schema import aliases, models, tags, versions

__all__ = ["check_not_needed", "check_usable", "judge", "set_alias", "set_status", "set_tags"]


def set_alias(
    connection: Connection, model: str, alias: str, version: int | None, actor: str
) -> int | None:
    """Moves an alias, or takes it away; returns where it pointed before.

    Raises:
        UnknownEntryError: there is no such version, or no such alias to take away.
        RefusedError: the version may not be deployed.
    """
    before = aliases_of(connection, model).get(alias)
    if version is None:
        if before is None:
            raise UnknownEntryError(unknown(connection, Reference(model, alias=alias)))
        model_id = select(models.c.id).where(models.c.name == model).scalar_subquery()
        connection.execute(
            delete(aliases).where(aliases.c.model_id == model_id, aliases.c.name == alias)
        )
        record_event(connection, "alias removed", actor, model=model, alias=alias, was=before)
        return before
    version_id, _ = find_id(connection, Reference(model, version))
    row = connection.execute(select(versions).where(versions.c.id == version_id)).one()
    check_usable(model, version, row.status, row.reason)
    values = {"version_id": version_id, "updated_ms": now_ms()}
    insert_or_update(connection, aliases, {"model_id": row.model_id, "name": alias}, values)
    record_event(
        connection, "alias set", actor, model=model, version=version, alias=alias, was=before
    )
    return before


def check_usable(model: str, version: int, status: str, reason: str, via: str = "") -> None:
    """Raises RefusedError unless a version may be deployed."""
    if status == VersionStatus.READY:
        return
    named = f"alias '{via}' of '{model}' points to version {version}, which" if via else ""
    why = f": {reason}" if reason else ""
    raise RefusedError(f"{named or f'{model}@{version}'} is {status.lower()}{why}")


def set_status(
    connection: Connection,
    version_id: int,
    status: VersionStatus,
    reason: str,
    actor: str,
    **told: str,
) -> None:
    """Changes what may be done with a version."""
    row = connection.execute(
        update(versions)
        .where(versions.c.id == version_id)
        .values(status=status.value, reason=reason, updated_ms=now_ms())
        .returning(versions.c.model_id, versions.c.number)
    ).one()
    model = connection.execute(select(models.c.name).where(models.c.id == row.model_id)).scalar()
    record_event(
        connection,
        status.value.lower(),
        actor,
        model=model or "",
        version=row.number,
        reason=reason,
        **told,
    )


def judge(
    connection: Connection, record: VersionRecord, faults: Sequence[str], actor: str
) -> VersionStatus:
    """Quarantines a version with faults; one without them gets back the status that it had.

    Nothing happens where its status is another by now than the record's. Returns its status.
    """
    query = select(versions.c.status).where(versions.c.id == record.id)
    current = VersionStatus(connection.execute(query).scalar_one())
    is_aside = current is VersionStatus.QUARANTINED
    if current != record.status or current is VersionStatus.REMOVED or bool(faults) == is_aside:
        return current
    if faults:
        wanted = VersionStatus.QUARANTINED
        set_status(connection, record.id, wanted, "; ".join(faults), actor, was=current)
        return wanted
    put_aside = [
        each.details.get("was", VersionStatus.READY)
        for each in list_events(connection, model=record.model, version=record.version, limit=1000)
        if each.kind == VersionStatus.QUARANTINED.lower()
    ]
    before = VersionStatus(put_aside[-1]) if put_aside else VersionStatus.READY
    set_status(connection, record.id, before, "", actor)
    return before


def set_tags(
    connection: Connection,
    record: VersionRecord,
    changes: Mapping[str, str | None],
    actor: str,
) -> None:
    """Sets tags of a version; None takes one away."""
    for key, value in changes.items():
        connection.execute(delete(tags).where(tags.c.version_id == record.id, tags.c.key == key))
        if value is not None:
            connection.execute(insert(tags).values(version_id=record.id, key=key, value=value))
    connection.execute(
        update(versions).where(versions.c.id == record.id).values(updated_ms=now_ms())
    )
    record_event(
        connection,
        "tagged",
        actor,
        model=record.model,
        version=record.version,
        tags=dict(changes),
    )


def check_not_needed(record: VersionRecord, what: str) -> None:
    """Raises RefusedError where a version serves somewhere, or is about to."""
    busy = sorted(
        {each.environment for each in record.deployments if each.status in ("SERVING", "REQUESTED")}
    )
    if busy:
        raise RefusedError(
            f"{record.reference} cannot be {what}: it is deployed to {', '.join(busy)}"
        )
