"""check_repository: everything that loading would find wrong, without serving anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.errors import ConfigError, CoreError
from penstock.repository.engine import ModelEngine
from penstock.repository.layout import list_models
from penstock.repository.loader import ModelLoader
from penstock.repository.settings import RepositorySettings

_log = logging.getLogger("penstock.repository")


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """One model: what was wrong, or which versions would be served.

    Attributes:
        name: of the model.
        backend: that serves it; empty where that could not be told.
        versions: that the policy chooses; empty where that could not be told.
        faults: every fault; empty = it would load.
        runs_on: where it would compute; empty where that could not be told.
    """

    name: str
    backend: str = ""
    versions: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    runs_on: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Every model of the repositories, by name."""

    models: tuple[CheckedModel, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """All faults, each after the name of its model."""
        return tuple(f"{model.name}: {fault}" for model in self.models for fault in model.faults)


def check_repository(
    engine: ModelEngine, settings: RepositorySettings, *, prepare: bool = False
) -> CheckReport:
    """Checks every model; opens the model files, makes no instance and runs nothing.

    Blocking: for as long as it takes to open every model file, one after the other.

    Args:
        engine: opens the files.
        settings: names the repositories; what to load at start does not matter.
        prepare: first builds the environments of models that bring locked requirements.

    Raises:
        StartupError: a repository cannot be read.
    """
    loader = ModelLoader(engine, settings)
    return CheckReport(
        tuple(_check_model(loader, name, prepare) for name in list_models(settings.paths))
    )


def _check_model(loader: ModelLoader, name: str, prepare: bool) -> CheckedModel:
    try:
        plan = loader.plan(name)
        if prepare and loader.prepare_environment(plan):
            _log.info("model '%s': its environment was built", name)
    except (ConfigError, CoreError) as error:
        return CheckedModel(name, faults=tuple(_faults_of(error, name)))
    faults: list[str] = []
    places: list[str] = []
    for version in plan.versions:
        try:
            places.append(loader.check_version(plan, version))
        except (ConfigError, CoreError) as error:
            faults += _faults_of(error, name)
    return CheckedModel(
        name,
        plan.config.backend,
        plan.versions,
        tuple(dict.fromkeys(faults)),
        "; ".join(dict.fromkeys(places)),
    )


def _faults_of(error: ConfigError | CoreError, name: str) -> Iterator[str]:
    if isinstance(error, ConfigError):
        yield from error.faults
    else:
        yield error.message.removeprefix(f"failed to load '{name}', ")
