"""Wires batch jobs to what answers their requests: a core of their own, or the server's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.app import make_core
from penstock.config import ServerConfig
from penstock.core import Caller, Core
from penstock.errors import StartupError
from penstock.repository.core_engine import CoreEngine
from penstock.repository.deployed import DIGEST_PARAMETER
from penstock.repository.layout import find_model
from penstock.repository.manager import ModelManager
from penstock.wiring import repository_settings

if TYPE_CHECKING:
    from penstock.jobs.manager import JobManager
    from penstock.jobs.model import Engine

__all__ = ["local_engine", "make_jobs", "model_digests"]


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
        yield LocalEngine(core, manager.metadata, manager.config, digests, timeout_s=timeout_s)
    finally:
        is_clean = await manager.close(config.exit_timeout_secs)
        is_clean = await core.close(config.exit_timeout_secs) and is_clean
    if not is_clean:
        raise StartupError(f"model '{model}' did not end within {config.exit_timeout_secs:g} s")


def make_jobs(config: ServerConfig, core: Core, models: ModelManager) -> JobManager:
    """The jobs of a server, which run on its core.

    Raises:
        StartupError: pyarrow is missing, or a root cannot be used.
    """
    try:
        from penstock.jobs.failures import JobError
        from penstock.jobs.local import LocalEngine
        from penstock.jobs.manager import JobManager
        from penstock.jobs.roots import JobRoots
        from penstock.jobs.storage import local_path, redacted
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise StartupError(f"--jobs-root needs {package}: pip install 'penstock[batch]'") from None
    digests = model_digests(config.model_repository)
    if config.environment:
        digests = partial(_deployed_digest, models)
    engine = LocalEngine(
        core,
        models.metadata,
        models.config,
        digests,
        caller=Caller.server(),
        background_batch_size=config.background_batch_size,
    )
    for root in config.jobs_root:
        path = local_path(root)
        if path is not None and not Path(path).is_dir():
            raise StartupError(f"--jobs-root '{redacted(root)}' is no directory")
    try:
        return JobManager(engine, JobRoots(config.jobs_root), config.jobs_max_running)
    except JobError as error:
        raise StartupError(f"--jobs-root: {error}") from None


def _deployed_digest(models: ModelManager, model: str, version: str) -> str:
    """Of a model from the store: known since it was loaded."""
    return models.config(model, version).parameters[DIGEST_PARAMETER]


def model_digests(repositories: tuple[Path, ...]) -> Any:
    """A function that gives the digest of a model's version: all of its directory but others.

    That is its files, its configuration, and for Python models their locked requirements and what
    they import from there.

    Blocking: the function reads every file.
    """
    from penstock.jobs.local import directory_digest

    def digest(model: str, version: str) -> str:
        path = find_model(repositories, model).path
        names = (entry.name for entry in path.iterdir())
        shared = [name for name in names if not name.isdecimal() and not name.startswith(".")]
        return directory_digest(path, (version, *shared))

    return digest
