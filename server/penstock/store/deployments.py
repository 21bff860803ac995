"""Deployments in the database: what is requested, what servers report. Functions of a transaction.

A deployment is REQUESTED, until the first server reports: SERVING, and what served before is
REPLACED, or FAILED, and what served before goes on. One that is followed by another request before
that is SUPERSEDED. A server that fails after another has succeeded is told by its report and an
event, and goes on with what it has. One that has no room says that it is WAITING, and tries again.

Each change takes the row of its model and then that of its environment: those put changes in one
order, and the environment's
`generation` tells servers that there was one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from penstock.store.database import insert_new, insert_or_update, now_ms
from penstock.store.events import record_event
from penstock.store.failures import RefusedError, UnknownEntryError
from penstock.store.records import Deployment, DeployStatus, Desired, Report
from penstock.store.schema import deployments, environments, models, reports, versions

__all__ = [
    "CHANNEL",
    "deployments_of",
    "desired_in",
    "environments_serving",
    "generation_of",
    "hear",
    "previous_of",
    "report",
    "request",
    "withdraw",
]

CHANNEL = "penstock_deployments"
"""Of PostgreSQL's NOTIFY; the payload is the environment."""
_TOLD = {
    DeployStatus.SERVING: "serving",
    DeployStatus.FAILED: "deploy failed",
    DeployStatus.WAITING: "deploy waits",
}


def request(
    connection: Connection,
    environment: str,
    *,
    model: str,
    version: int,
    kind: str,
    alias: str = "",
    allow_breaking: bool = False,
    actor: str,
) -> int:
    """Asks for a version in an environment, which is made where it is not there; returns the id."""
    environment_id = _lock(connection, environment, may_create=True)
    row = connection.execute(
        select(versions.c.id, versions.c.model_id)
        .join(models, models.c.id == versions.c.model_id)
        .where(models.c.name == model, versions.c.number == version)
    ).one()
    at_ms = now_ms()
    connection.execute(
        update(deployments)
        .where(
            deployments.c.environment_id == environment_id,
            deployments.c.model_id == row.model_id,
            deployments.c.status == DeployStatus.REQUESTED.value,
        )
        .values(status=DeployStatus.SUPERSEDED.value, settled_ms=at_ms)
    )
    number: int = connection.execute(
        insert(deployments)
        .values(
            environment_id=environment_id,
            model_id=row.model_id,
            version_id=row.id,
            kind=kind,
            alias=alias,
            allow_breaking=allow_breaking,
            status=DeployStatus.REQUESTED.value,
            reason="",
            actor=actor,
            requested_ms=at_ms,
        )
        .returning(deployments.c.id)
    ).scalar_one()
    told = {"deployment": number, "how": kind, "alias": alias, "allow_breaking": allow_breaking}
    record_event(
        connection,
        "deploy requested",
        actor,
        model=model,
        version=version,
        environment=environment,
        **told,
    )
    _announce(connection, environment, environment_id)
    return number


def report(
    connection: Connection,
    deployment_id: int,
    server: str,
    status: DeployStatus,
    *,
    reason: str = "",
    digest: str = "",
) -> None:
    """Takes down what a server says of a deployment: SERVING, FAILED or WAITING."""
    (found,) = deployments_of(connection, deployment_id=deployment_id) or (None,)
    if found is None:
        raise UnknownEntryError(f"there is no deployment {deployment_id}")
    connection.execute(select(models.c.id).where(models.c.name == found.model).with_for_update())
    environment_id = _lock(connection, found.environment)
    (found,) = deployments_of(connection, deployment_id=deployment_id)
    reason = reason.replace("\0", "").encode(errors="replace").decode()  # no database takes all
    values = {
        "status": status.value,
        "reason": reason,
        "digest": digest,
        "reported_ms": now_ms(),
    }
    key = {"deployment_id": deployment_id, "server": server}
    insert_or_update(connection, reports, key, values)
    before = [each for each in found.reports if each[0] == server]
    if not before or before[0][1:3] != (status.value, reason):
        record_event(
            connection,
            _TOLD[status],
            server,
            model=found.model,
            version=found.version,
            environment=found.environment,
            deployment=deployment_id,
            digest=digest,
            **({"reason": reason} if reason else {}),
        )
    if found.status == DeployStatus.REQUESTED and status is not DeployStatus.WAITING:
        _settle(connection, found, status, reason)
        if status is DeployStatus.FAILED:
            _announce(connection, found.environment, environment_id)


def hear(connection: Connection, environment: str, server: str) -> None:
    """Takes down that a server is there: what it has said of an environment still holds."""
    current = (DeployStatus.SERVING.value, DeployStatus.REQUESTED.value)
    there = (
        select(deployments.c.id)
        .join(environments, environments.c.id == deployments.c.environment_id)
        .where(environments.c.name == environment, deployments.c.status.in_(current))
    )
    connection.execute(
        update(reports)
        .where(reports.c.server == server, reports.c.deployment_id.in_(there))
        .values(reported_ms=now_ms())
    )


def withdraw(connection: Connection, environment: str, model: str, actor: str) -> int:
    """Asks for a model to serve no more in an environment; returns the id.

    Raises:
        RefusedError: nothing of it is deployed there.
    """
    found = deployments_of(connection, environment=environment, model=model)
    if not found or found[-1].status == DeployStatus.WITHDRAWN:
        raise RefusedError(f"nothing of '{model}' is deployed to '{environment}'")
    environment_id = _lock(connection, environment)
    row = connection.execute(select(deployments).where(deployments.c.id == found[-1].id)).one()
    values = {name: getattr(row, name) for name in ("environment_id", "model_id", "version_id")}
    of_model = [deployments.c[name] == values[name] for name in ("environment_id", "model_id")]
    at_ms = now_ms()
    for status, wanted in (("REQUESTED", "SUPERSEDED"), ("SERVING", "REPLACED")):
        where = [*of_model, deployments.c.status == status]
        connection.execute(
            update(deployments).where(*where).values(status=wanted, settled_ms=at_ms)
        )
    number: int = connection.execute(
        insert(deployments)
        .values(
            kind="undeploy",
            alias="",
            allow_breaking=False,
            status=DeployStatus.WITHDRAWN.value,
            reason="",
            actor=actor,
            requested_ms=at_ms,
            settled_ms=at_ms,
            **values,
        )
        .returning(deployments.c.id)
    ).scalar_one()
    record_event(
        connection, "undeployed", actor, model=model, environment=environment, deployment=number
    )
    _announce(connection, environment, environment_id)
    return number


def _settle(connection: Connection, found: Deployment, status: DeployStatus, reason: str) -> None:
    this = deployments.c.id == found.id
    values = {"status": status.value, "reason": reason, "settled_ms": now_ms()}
    connection.execute(update(deployments).where(this).values(**values))
    if status is not DeployStatus.SERVING:
        return
    row = connection.execute(select(deployments).where(this)).one()
    connection.execute(
        update(deployments)
        .where(
            deployments.c.environment_id == row.environment_id,
            deployments.c.model_id == row.model_id,
            deployments.c.status == DeployStatus.SERVING.value,
            deployments.c.id != found.id,
        )
        .values(status=DeployStatus.REPLACED.value)
    )


def environment_names(connection: Connection) -> list[str]:
    """Of all of them, sorted."""
    return list(
        connection.execute(select(environments.c.name).order_by(environments.c.name)).scalars()
    )


def generation_of(connection: Connection, environment: str) -> int:
    """A number that goes up with every change; 0 while nothing was ever deployed there."""
    query = select(environments.c.generation).where(environments.c.name == environment)
    return connection.execute(query).scalar() or 0


def desired_in(connection: Connection, environment: str) -> list[Desired]:
    """What an environment should serve, by model."""
    by_model: defaultdict[str, list[Deployment]] = defaultdict(list)
    wanted = (DeployStatus.REQUESTED, DeployStatus.SERVING, DeployStatus.WITHDRAWN)
    for each in deployments_of(connection, environment=environment, statuses=wanted):
        by_model[each.model].append(each)
    desired = []
    for _, found in sorted(by_model.items()):
        *older, target = sorted(found, key=lambda each: each.id)
        older = [each for each in older if each.status != DeployStatus.WITHDRAWN]
        desired.append(Desired(target, older[-1] if older else None))
    return desired


def previous_of(connection: Connection, environment: str, model: str) -> Deployment:
    """What served before that which serves now, or is about to.

    Raises:
        RefusedError: there is nothing to go back to.
    """
    statuses = (
        DeployStatus.REQUESTED,
        DeployStatus.SERVING,
        DeployStatus.REPLACED,
        DeployStatus.WITHDRAWN,
    )
    found = deployments_of(connection, environment=environment, model=model, statuses=statuses)
    if not found:
        raise RefusedError(f"nothing of '{model}' is deployed to '{environment}'")
    *older, current = found
    for each in reversed(older):
        is_back = current.status == DeployStatus.WITHDRAWN and each.version == current.version
        if each.status != DeployStatus.WITHDRAWN and (is_back or each.version != current.version):
            return each
    raise RefusedError(
        f"'{model}' has served no other version in '{environment}' than {current.version}"
    )


def environments_serving(
    connection: Connection, model: str = ""
) -> dict[tuple[str, int], list[str]]:
    """By model and version: the environments that it serves in."""
    serving: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    found = deployments_of(connection, model=model, statuses=(DeployStatus.SERVING,))
    for each in found:
        serving[each.model, each.version].append(each.environment)
    return dict(serving)


def deployments_of(
    connection: Connection,
    *,
    environment: str = "",
    model: str = "",
    version_id: int | None = None,
    deployment_id: int | None = None,
    statuses: Sequence[DeployStatus] = (),
) -> list[Deployment]:
    """Deployments that fit everything that is given, in the order of their requests."""
    query: Any = (
        select(
            deployments.c.id,
            environments.c.name,
            models.c.name,
            versions.c.number,
            versions.c.digest,
            *(deployments.c[name] for name in ("kind", "alias", "allow_breaking", "status")),
            *(deployments.c[name] for name in ("reason", "actor", "requested_ms", "settled_ms")),
        )
        .join(environments, environments.c.id == deployments.c.environment_id)
        .join(models, models.c.id == deployments.c.model_id)
        .join(versions, versions.c.id == deployments.c.version_id)
        .order_by(deployments.c.id)
    )
    if environment:
        query = query.where(environments.c.name == environment)
    if model:
        query = query.where(models.c.name == model)
    if version_id is not None:
        query = query.where(deployments.c.version_id == version_id)
    if deployment_id is not None:
        query = query.where(deployments.c.id == deployment_id)
    if statuses:
        query = query.where(deployments.c.status.in_([each.value for each in statuses]))
    rows: Sequence[Any] = connection.execute(query).all()
    said: defaultdict[int, list[Report]] = defaultdict(list)
    if rows:
        told = select(reports).where(reports.c.deployment_id.in_([row[0] for row in rows]))
        for each in connection.execute(told.order_by(reports.c.server)):
            fields = (each.server, each.status, each.reason, each.digest, each.reported_ms)
            said[each.deployment_id].append(Report(*fields))
    return [Deployment(*[*row, tuple(said[row[0]])]) for row in rows]


def following(connection: Connection, model: str, alias: str) -> list[Deployment]:
    """The newest deployment of each environment, where that follows an alias."""
    statuses = (DeployStatus.REQUESTED, DeployStatus.SERVING)
    found = deployments_of(connection, model=model, statuses=statuses)
    newest = {each.environment: each for each in found}
    found = sorted(newest.values(), key=lambda each: each.environment)  # the order of locks
    return [each for each in found if each.alias == alias]


def _lock(connection: Connection, environment: str, *, may_create: bool = False) -> int:
    """The row of an environment, held to the end of the transaction."""
    if may_create:
        insert_new(connection, environments, name=environment, generation=0, created_ms=now_ms())
    number: int = connection.execute(
        update(environments)
        .where(environments.c.name == environment)
        .values(generation=environments.c.generation)
        .returning(environments.c.id)
    ).scalar_one()
    return number


def _announce(connection: Connection, environment: str, environment_id: int) -> None:
    connection.execute(
        update(environments)
        .where(environments.c.id == environment_id)
        .values(generation=environments.c.generation + 1)
    )
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_notify(:channel, :environment)"),
            {"channel": CHANNEL, "environment": environment},
        )
