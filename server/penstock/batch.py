"""Wires batch jobs to what answers their requests: a core of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.app import make_core, repository_settings
from penstock.config import ServerConfig
from penstock.errors import StartupError
from penstock.repository.core_engine import CoreEngine
from penstock.repository.layout import CONFIG_FILENAME, find_model
from penstock.repository.manager import ModelManager

if TYPE_CHECKING:
    from penstock.jobs.model import Engine

__all__ = ["local_engine", "model_digests"]


@asynccontextmanager
async def local_engine(config: ServerConfig, model: str, timeout_s: float) -> AsyncIterator[Engine]:
    """A core in this process that serves one model of the repositories.

    Raises:
        StartupError: the model did not load.
    """
    from penstock.jobs.local import LocalEngine

    settings = replace(
        repository_settings(config),
        control_mode="explicit",
        load_models=(model,),
        exit_on_error=True,
    )
    core = make_core(config)
    core.start()
    manager = ModelManager(CoreEngine(core), settings)
    try:
        await manager.start()
        digests = model_digests(config.model_repository)
        yield LocalEngine(core, manager.metadata, manager.config, digests, timeout_s)
    finally:
        is_clean = await manager.close(config.exit_timeout_secs)
        is_clean = await core.close(config.exit_timeout_secs) and is_clean
    if not is_clean:
        raise StartupError(f"model '{model}' did not end within {config.exit_timeout_secs:g} s")


def model_digests(repositories: tuple[Path, ...]) -> Any:
    """A function that gives the digest of a model's version: its files and its configuration.

    Blocking: the function reads every file.
    """
    from penstock.jobs.local import directory_digest

    def digest(model: str, version: str) -> str:
        return directory_digest(find_model(repositories, model).path, (version, CONFIG_FILENAME))

    return digest
