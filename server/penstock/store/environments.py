"""StoreEnvironments: the methods of the Store about what serves where. Each is one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from penstock.store import changes, deployments, registry
from penstock.store.database import Database
from penstock.store.failures import StoreError
from penstock.store.records import (
    Deployment,
    DeployStatus,
    Desired,
    Reference,
    check_name,
)

__all__ = ["StoreEnvironments"]


class StoreEnvironments:
    """Deployments of tracked models.

    Threading: thread-safe. Blocking: every method.
    """

    def __init__(self, database: Database, actor: str) -> None:
        """Connects to nothing yet; `actor` is who events name."""
        self.database = database
        self.actor = actor

    def deploy(
        self, reference: Reference, environment: str, *, allow_breaking: bool = False
    ) -> Deployment:
        """Asks the servers of an environment to serve a version, or to follow an alias.

        Raises:
            RefusedError: the version may not be deployed.
            UnknownEntryError: there is none.
        """
        check_name("environment", environment)
        with self._changing(reference.model) as connection:
            record = registry.load_version(connection, reference)
            changes.check_usable(
                record.model, record.version, record.status, record.reason, reference.alias
            )
            number = deployments.request(
                connection,
                environment,
                model=record.model,
                version=record.version,
                kind="deploy",
                alias=reference.alias,
                allow_breaking=allow_breaking,
                actor=self.actor,
            )
            return deployments.deployments_of(connection, deployment_id=number)[0]

    def rollback(self, model: str, environment: str) -> Deployment:
        """Asks for what served before; an interface that went may come back, it was there.

        Raises:
            RefusedError: nothing served before, or it may not be deployed any more.
        """
        with self._changing(model) as connection:
            registry.find_id(connection, Reference(model))
            previous = deployments.previous_of(connection, environment, model)
            record = registry.load_version(connection, Reference(model, previous.version))
            changes.check_usable(model, record.version, record.status, record.reason)
            number = deployments.request(
                connection,
                environment,
                model=model,
                version=previous.version,
                kind="rollback",
                allow_breaking=True,
                actor=self.actor,
            )
            return deployments.deployments_of(connection, deployment_id=number)[0]

    def undeploy(self, model: str, environment: str) -> Deployment:
        """Asks the servers of an environment to serve a model no more.

        Raises:
            RefusedError: nothing of it is deployed there.
        """
        with self._changing(model) as connection:
            registry.find_id(connection, Reference(model))
            number = deployments.withdraw(connection, environment, model, self.actor)
            return deployments.deployments_of(connection, deployment_id=number)[0]

    def deployment(self, number: int) -> Deployment:
        """A deployment with what servers said of it."""
        with self.database.read() as connection:
            found = deployments.deployments_of(connection, deployment_id=number)
        if not found:
            raise StoreError(f"there is no deployment {number}")
        return found[0]

    def environment_names(self) -> list[str]:
        """Of all environments to which anything was ever deployed."""
        with self.database.read() as connection:
            return deployments.environment_names(connection)

    def generation(self, environment: str) -> int:
        """A number that goes up with every change of an environment."""
        with self.database.read() as connection:
            return deployments.generation_of(connection, environment)

    def desired(self, environment: str) -> tuple[int, list[Desired]]:
        """The generation, and what should be served as of it."""
        with self.database.read() as connection:
            generation = deployments.generation_of(connection, environment)
            return generation, deployments.desired_in(connection, environment)

    def report(
        self,
        deployment_id: int,
        server: str,
        status: DeployStatus,
        *,
        reason: str = "",
        digest: str = "",
    ) -> None:
        """Takes down what a server says of a deployment."""
        with self.database.write() as connection:
            deployments.report(
                connection, deployment_id, server, status, reason=reason, digest=digest
            )

    def hear(self, environment: str, server: str) -> None:
        """Takes down that a server of an environment is there."""
        with self.database.write() as connection:
            deployments.hear(connection, environment, server)

    def environments_of(self, model: str) -> list[Deployment]:
        """What serves of a model, and what is requested."""
        statuses = (DeployStatus.SERVING, DeployStatus.REQUESTED)
        with self.database.read() as connection:
            return deployments.deployments_of(connection, model=model, statuses=statuses)

    def following(self, model: str, alias: str) -> list[Deployment]:
        """The newest deployment of each environment that follows an alias."""
        with self.database.read() as connection:
            return deployments.following(connection, model, alias)

    @contextmanager
    def _changing(self, model: str) -> Iterator[Connection]:
        """A transaction that changes something of a model; others wait, and see what it did."""
        with self.database.write() as connection:
            registry.lock_model(connection, model)
            yield connection
