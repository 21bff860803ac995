"""DeployedModels: serves versions that somebody hands over, each in a repository of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from penstock.codec import ModelConfig
from penstock.repository.catalog import ServedVersion
from penstock.repository.loader import LoadPlan, ModelLoader
from penstock.repository.manager import ModelManager

__all__ = ["DIGEST_PARAMETER", "Check", "DeployedModels"]

DIGEST_PARAMETER = "penstock_digest"
"""Of a deployed model's configuration: the digest of the bytes it was loaded from."""

Check = Callable[[ServedVersion], Awaitable[ServedVersion]]
"""Lets a version that is warm and started take traffic, as it returns it; or raises."""

_log = logging.getLogger("penstock.repository")


class DeployedModels(ModelManager):
    """A ModelManager without repositories of its own: `deploy` says what to load, and from where.

    `missing` are models that should serve and do not: the server is not ready while there are any.
    What was asked for and refused counts for nothing, as long as what served before goes on.
    """

    missing: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Nothing is loaded by itself."""
        self._is_started = True

    async def deploy(
        self, name: str, repository: Path, version: int, check: Check, *, prepares: bool = False
    ) -> None:
        """Loads a version, warms it up, has it checked and swaps it in; then the old one drains.

        Args:
            name: of the model.
            repository: a directory that holds the model's, and stays as it is while it serves.
            version: to serve, whatever the configuration's policy says; no other.
            check: the last gate.
            prepares: the environment of its requirements is built first, where it is not there.

        Raises:
            CoreError: it does not serve; what served before does.
        """
        self._check_open()
        settings = replace(self._settings, paths=(repository,))
        loader = ModelLoader(self._engine, settings)

        def make_plan() -> LoadPlan:
            plan = loader.plan(name, only=version)
            if prepares and loader.prepare_environment(plan):
                text = "model '%s' version %d: its environment was built"
                _log.info(text, name, version, extra={"model": name, "version": version})
            return plan

        async def prepare(plan: LoadPlan) -> list[ServedVersion]:
            prepared = await self._prepare(loader, lambda: True, plan)
            try:
                return [await check(each) for each in prepared]
            except BaseException:
                await self.discard(name, prepared)
                raise

        await asyncio.shield(self._track(self._replace(name, make_plan, prepare)))

    def serving_config(self, name: str, version: int) -> ModelConfig | None:
        """The completed configuration that a version serves with; None: it does not serve.

        One that was unloaded for another is asked for still, and has what it served with.
        """
        record = self._models.get(name)
        if record is None:
            return None
        served = record.serving.get(version)
        return served.config if served is not None else record.evicted.get(version)

    def all_ready(self) -> bool:
        """Whether the server is ready, as far as models go: after start, before close."""
        if not self._is_started or self._is_closing:
            return False
        if not self._settings.strict_readiness:
            return True
        return not self.missing and all(
            served.handle.is_available()
            for record in self._models.values()
            for served in record.serving.values()
        )
