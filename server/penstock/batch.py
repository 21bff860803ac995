"""Wires batch jobs to what answers their requests: a core of their own, or the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.config import ServerConfig
from penstock.core import Caller, Core
from penstock.deployed import cache_directory, check_bytes, with_digest
from penstock.errors import StartupError
from penstock.repository.catalog import ServedVersion
from penstock.repository.core_engine import CoreEngine
from penstock.repository.deployed import DIGEST_PARAMETER, DeployedModels
from penstock.repository.layout import find_model
from penstock.repository.manager import ModelManager
from penstock.wiring import make_core, repository_settings

if TYPE_CHECKING:
    from penstock.jobs.manager import JobManager
    from penstock.jobs.model import Engine
    from penstock.store.cache import ArtifactCache
    from penstock.store.records import Reference, VersionRecord
    from penstock.store.store import Store

__all__ = [
    "StoredModel",
    "choose_stored",
    "local_engine",
    "make_jobs",
    "model_digests",
    "stored_engine",
]


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version of a model in the model store, and no other.

    Attributes:
        store: where the store is; may hold a password.
        name: of the model.
        version: its number in the store.
        digest: of its bytes, as they were pushed.
        note: what to tell about how it was chosen; "" = nothing.
    """

    store: str = field(repr=False)
    name: str
    version: int
    digest: str
    note: str = ""


def choose_stored(url: str, text: str, begun: Mapping[str, Any] | None) -> StoredModel:
    """Finds the version that a job runs.

    What an alias means, or which version is the latest, may change while a job is stopped. Outputs
    that were begun are gone on with by the version that began them, so that no two are mixed.

    Args:
        url: of the store.
        text: NAME, NAME@3 or NAME@alias.
        begun: the model of the unfinished job whose outputs are there; None = there is none.

    Blocking: asks the store.

    Raises:
        PlanError: there is no such version, or it may not be used.
        TemporaryError: the store cannot be reached.
    """
    with _store_failures():
        from penstock.store.changes import check_usable
        from penstock.store.records import Reference
        from penstock.store.store import open_store

        reference = Reference.parse(text)
        with open_store(url) as store:
            begun_by = _begun_record(store, reference, begun or {})
            # Where they were begun the alias need not be there any more.
            meant = _record(store, reference) if begun_by else store.show(reference)
        record = begun_by or meant
        assert record is not None, "show raises"
        alias = "" if begun_by else reference.alias
        check_usable(record.model, record.version, record.status, record.reason, alias)
        note = _moved_note(text, begun_by, meant) if begun_by else ""
        return StoredModel(url, record.model, record.version, record.digest, note)


def _begun_record(
    store: Store, reference: Reference, begun: Mapping[str, Any]
) -> VersionRecord | None:
    """The version that began the outputs; None: another model or store did, or it was asked for."""
    from penstock.store.records import Reference

    version = str(begun.get("version", ""))
    if reference.version is not None or begun.get("name") != reference.model:
        return None
    if not (version.isascii() and version.isdigit()):
        return None
    record = _record(store, Reference(reference.model, int(version)))
    return record if record is not None and record.digest == begun.get("digest") else None


def _record(store: Store, reference: Reference) -> VersionRecord | None:
    from penstock.store.failures import UnknownEntryError

    try:
        return store.show(reference)
    except UnknownEntryError:
        return None


def _moved_note(text: str, begun_by: VersionRecord, meant: VersionRecord | None) -> str:
    if meant is not None and meant.version == begun_by.version:
        return ""
    now = f"is version {meant.version} now" if meant is not None else "is no more"
    return f"{text} {now}; these outputs go on with version {begun_by.version}, which began them"


@contextmanager
def _store_failures() -> Iterator[None]:
    """Turns what the store raises into a JobError, by what may follow."""
    from penstock.jobs.failures import JobError, PlanError, TemporaryError

    try:
        from penstock.store import failures
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise PlanError(f"--store needs {package}: pip install 'penstock[store]'") from None
    try:
        yield
    except (failures.StoreUnavailableError, failures.NoRoomError) as error:
        raise TemporaryError(*error.lines) from None
    except (failures.RefusedError, failures.UnknownEntryError) as error:
        raise PlanError(*error.lines) from None
    except failures.StoreError as error:
        raise JobError(*error.lines) from None


@asynccontextmanager
async def stored_engine(
    config: ServerConfig, model: StoredModel, timeout_s: float
) -> AsyncIterator[Engine]:
    """A core in this process that serves one version of the model store, out of the cache.

    Its bytes are checked when they are fetched or found, and again once the model is loaded.

    Raises:
        JobError: the version cannot be had.
        CoreError: the model did not load.
    """
    from penstock.jobs.local import LocalEngine

    with _store_failures():
        from penstock.store.cache import ArtifactCache

        cache = ArtifactCache(cache_directory(config), config.store_cache_bytes)
    try:
        record, repository = await asyncio.to_thread(_fetch, model, cache)

        async def check(served: ServedVersion) -> ServedVersion:
            digest = await asyncio.to_thread(check_bytes, repository, record)
            return with_digest(served, digest)

        core = make_core(config)
        manager = DeployedModels(CoreEngine(core), repository_settings(config))
        async with _running(config, core, manager, model.name):
            builds = config.store_build_environments
            await manager.deploy(model.name, repository, model.version, check, prepares=builds)
            digest = partial(_deployed_digest, manager)
            yield LocalEngine(core, manager.metadata, manager.config, digest, timeout_s=timeout_s)
    finally:
        cache.close()


def _fetch(model: StoredModel, cache: ArtifactCache) -> tuple[VersionRecord, Path]:
    """The version in the cache, in use. Blocking."""
    with _store_failures():
        from penstock.store.failures import CorruptError
        from penstock.store.records import Reference
        from penstock.store.store import open_store

        cache.open()
        with open_store(model.store) as store:
            record = store.show(Reference(model.name, model.version))
            if record.digest != model.digest:
                raise CorruptError(f"{record.reference} is {record.digest}, not {model.digest}")
            return record, cache.fetch(record, store.artifacts)


@asynccontextmanager
async def _running(
    config: ServerConfig, core: Core, manager: ModelManager, model: str
) -> AsyncIterator[None]:
    """Starts a core and what loads its models; ends both."""
    core.start()
    try:
        await manager.start()
        yield
    finally:
        is_clean = await manager.close(config.exit_timeout_secs)
        is_clean = await core.close(config.exit_timeout_secs) and is_clean
    if not is_clean:
        raise StartupError(f"model '{model}' did not end within {config.exit_timeout_secs:g} s")


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
    manager = ModelManager(CoreEngine(core), settings)
    async with _running(config, core, manager, model):
        digests = model_digests(config.model_repository)
        yield LocalEngine(core, manager.metadata, manager.config, digests, timeout_s=timeout_s)


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
        # With the half that clients may lower, a quarter is left for the others.
        most_in_flight=(config.max_inflight_requests + 3) // 4,
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
