"""What following an environment needs: a store to ask, and something that serves."""

from __future__ import annotations

from typing import Protocol

from penstock.store.records import Deployment, DeployStatus, Desired

__all__ = ["Deployer", "FollowedStore"]


class FollowedStore(Protocol):
    """What of the Store following needs. Thread-safe, blocking; StoreUnavailableError: gone."""

    def generation(self, environment: str) -> int:
        """Goes up with every change."""

    def desired(self, environment: str) -> tuple[int, list[Desired]]:
        """The generation, and what should be served as of it."""

    def environment_names(self) -> list[str]:
        """Of all environments."""

    def report(
        self,
        deployment_id: int,
        server: str,
        status: DeployStatus,
        *,
        reason: str = "",
        digest: str = "",
    ) -> None:
        """Takes down how a deployment fares."""

    def hear(self, environment: str, server: str) -> None:
        """Takes down that a server is there."""


class Deployer(Protocol):
    """What serves."""

    async def deploy(self, deployment: Deployment, previous: Deployment | None) -> str:
        """Serves a version; the digest of the bytes it loaded.

        `previous` is what served before, whose interface must still be had, unless that is waived.

        Raises:
            StoreUnavailableError: the store cannot be reached; it is tried again.
            NoRoomError: this machine has no room; it is told and tried again.
            PenstockError: it does not serve, and what served before does.
        """

    async def withdraw(self, model: str) -> None:
        """Serves a model no more."""

    def set_missing(self, models: frozenset[str]) -> None:
        """Which models should serve and do not."""
