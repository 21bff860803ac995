"""The log of events: only ever added to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from penstock.store.database import now_ms
from penstock.store.records import Event
from penstock.store.schema import events

__all__ = ["list_events", "record_event"]


def record_event(
    connection: Connection,
    kind: str,
    actor: str,
    *,
    model: str = "",
    version: int | None = None,
    environment: str = "",
    **details: Any,
) -> None:
    """Adds one, in the transaction of what it tells."""
    connection.execute(
        insert(events).values(
            at_ms=now_ms(),
            kind=kind,
            actor=actor,
            model=model,
            version=version,
            environment=environment,
            details=details,
        )
    )


def list_events(
    connection: Connection,
    *,
    model: str = "",
    version: int | None = None,
    environment: str = "",
    limit: int = 100,
) -> Sequence[Event]:
    """The latest, oldest first."""
    query = select(events).order_by(events.c.id.desc()).limit(limit)
    if model:
        query = query.where(events.c.model == model)
    if version is not None:
        query = query.where(events.c.version == version)
    if environment:
        query = query.where(events.c.environment == environment)
    rows = connection.execute(query).all()
    return [Event(*row) for row in reversed(rows)]
