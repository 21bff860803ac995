"""Wires models to where they come from: repositories on disk, or the model store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.access.door import access_policy
from penstock.core import Core
from penstock.engine_options import engine_builder, engine_directory, engine_options
from penstock.engines import (
    FLAVOURS,
    EngineCache,
    EngineCacheSettings,
    SeenDevices,
    operations_of,
)
from penstock.errors import ConfigError
from penstock.operations import OperationCounter
from penstock.repository.core_engine import CoreEngine
from penstock.repository.deployed import DeployedModels
from penstock.repository.environments import EnvironmentSettings
from penstock.repository.manager import ModelManager
from penstock.repository.poller import RepositoryPoller
from penstock.repository.settings import RepositorySettings
from penstock.repository.snapshot import RepositoryScanner
from penstock.scaling.instances import InstanceScaler
from penstock.scaling.policy import PolicySettings

if TYPE_CHECKING:
    from penstock.config import ServerConfig
    from penstock.deployed import StoreService

__all__ = [
    "PLUGINS",
    "make_core",
    "make_instance_scaler",
    "make_models",
    "make_poller",
    "repository_settings",
]

PLUGINS = Path(__file__).parent / "backends"


def make_core(config: ServerConfig) -> Core:
    """The core with its backends and engines at hand."""
    directories = [str(PLUGINS), *(str(each) for each in config.backend_directory)]
    core = Core(
        backend_directories=directories,
        max_inflight_requests=config.max_inflight_requests,
        max_request_bytes=config.max_message_bytes,
        max_background_bytes=(config.max_buffered_bytes + 1) // 2,
        max_response_bytes=config.max_message_bytes,
        allow_client_shm=config.allow_client_shm,
        max_waiting_requests=config.model_load_queue_size,
        access=access_policy(config),
    )
    for backend, values in engine_options(config).items():
        core.engine.set_backend_options(backend, values)
    return core


def make_models(config: ServerConfig, core: Core, on_change: Callable[[], None]) -> ModelManager:
    """What serves models: those of the repositories, or those that are deployed."""
    kind = DeployedModels if config.environment else ModelManager
    return kind(CoreEngine(core), repository_settings(config), on_change)


def make_poller(
    config: ServerConfig, core: Core, models: ModelManager
) -> RepositoryPoller | StoreService | None:
    """What follows changes; None: nothing does.

    Raises:
        StartupError: the store cannot be used.
    """
    if isinstance(models, DeployedModels):
        from penstock.deployed import make_store_service

        return make_store_service(config, core, models)
    if config.model_control_mode != "poll":
        return None
    scanner = RepositoryScanner(config.model_repository)
    return RepositoryPoller(models, scanner, config.repository_poll_secs)


def make_instance_scaler(config: ServerConfig, models: ModelManager) -> InstanceScaler:
    """What decides how many instances models have."""
    settings = PolicySettings(
        target_utilisation=config.instance_target_utilisation,
        target_queue_age_s=config.instance_target_queue_age_ms / 1e3,
        up_window_s=config.instance_up_window_secs,
        down_window_s=config.instance_down_window_secs,
    )
    return InstanceScaler(models.scalable, settings, config.instance_interval_secs)


def _environment_settings(config: ServerConfig) -> EnvironmentSettings:
    """Where environments of Python models are: by default in the user's cache."""
    interpreter = config.backend_options().get("python", {}).get("interpreter", sys.executable)
    if config.python_environments:
        return EnvironmentSettings(Path(config.python_environments), Path(interpreter))
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return EnvironmentSettings(Path(cache) / "penstock" / "environments", Path(interpreter))


def _engine_cache(config: ServerConfig) -> EngineCache:
    """Where engines of ONNX models are kept, and what builds them."""
    builder = engine_builder(config) or FLAVOURS[0]
    if builder not in FLAVOURS:
        raise ConfigError(
            [
                f"--backend-config tensorrt,builder: expected {' or '.join(FLAVOURS)}, "
                f"got '{builder}'"
            ]
        )
    return EngineCache(
        EngineCacheSettings(
            engine_directory(config),
            config.engine_build_timeout_secs,
            flavour=builder,
            max_bytes=config.engine_cache_bytes,
        )
    )


def repository_settings(config: ServerConfig) -> RepositorySettings:
    """What the model manager needs to know.

    Raises:
        ConfigError: an option of a backend that is the server's own is not what it may be.
    """
    return RepositorySettings(
        paths=config.model_repository,
        control_mode=config.model_control_mode,
        load_models=config.load_model,
        exit_on_error=config.exit_on_error,
        strict_readiness=config.strict_readiness,
        load_threads=config.model_load_thread_count,
        drain_timeout_s=config.exit_timeout_secs,
        background_batch_size=config.background_batch_size,
        backend_directories=(PLUGINS, *config.backend_directory),
        memory_budget_bytes=config.memory_budget_bytes,
        min_residency_s=config.model_min_residency_secs,
        environments=_environment_settings(config),
        plans=_engine_cache(config),
        gpus=SeenDevices(),
        operations=OperationCounter(of_plan=operations_of) if config.count_operations else None,
    )
