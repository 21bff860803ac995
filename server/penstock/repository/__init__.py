"""Finds model directories, checks and completes their configuration, loads, swaps and unloads.

The manager is the door; `core_engine.CoreEngine` puts the native core behind it::

    manager = ModelManager(CoreEngine(core), RepositorySettings(paths=(Path("models"),)))
    await manager.start()
    ...
    await manager.close(timeout_s=30)

`core_engine` is not imported here: this package works without the native module.
"""

from penstock.repository.check import CheckedModel, CheckReport, check_repository
from penstock.repository.manager import ModelManager
from penstock.repository.settings import RepositorySettings

__all__ = [
    "CheckReport",
    "CheckedModel",
    "ModelManager",
    "RepositorySettings",
    "check_repository",
]
