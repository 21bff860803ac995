"""Wires a server to the model store: what `penstock serve --store URL --environment NAME` adds.

Fetched, verified, loaded, warmed up, checked, and only then served: `StoreDeployer.deploy`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.codec import RawTensor, build_infer_request, parse_infer_response
from penstock.core import Caller, Core, deadline_ns
from penstock.errors import (
    CoreError,
    DataLossError,
    FailedPreconditionError,
    StartupError,
    core_error,
)
from penstock.repository.catalog import ServedVersion
from penstock.repository.core_engine import CoreVersion
from penstock.repository.deployed import DIGEST_PARAMETER, DeployedModels
from penstock.stored import signature_of
from penstock.threads import Threads

if TYPE_CHECKING:
    from penstock.config import ServerConfig
    from penstock.store.cache import ArtifactCache
    from penstock.store.follower import StoreFollower
    from penstock.store.golden import GoldenRequest
    from penstock.store.listener import DeploymentListener
    from penstock.store.records import Deployment, VersionRecord
    from penstock.store.store import Store

__all__ = [
    "StoreDeployer",
    "StoreService",
    "cache_directory",
    "check_bytes",
    "make_store_service",
    "name_of",
    "with_digest",
]


_log = logging.getLogger("penstock.store")
_GOLDEN_LIMIT_S = 60.0
_MAX_GOLDEN_BYTES = 64 << 20
_USUAL = ("127.0.0.1", "localhost", "0.0.0.0", "::", "[::]")
"""Addresses that say nothing; on others of a host there may be more servers with the same port."""


class StoreDeployer:
    """Deploys versions of the store on a server's models.

    Threading: confined to the event loop; the store and the disk are used in a thread of its own.
    Ownership: the cache's leases; borrows the store, the models and the core.
    """

    def __init__(
        self, store: Store, cache: ArtifactCache, models: DeployedModels, core: Core, builds: bool
    ) -> None:
        self._store = store
        self._cache = cache
        self._models = models
        self._core = core
        self._builds = builds
        self._threads = Threads(2, "fetch")
        self._held: dict[str, list[VersionRecord]] = {}

    async def deploy(self, deployment: Deployment, previous: Deployment | None) -> str:
        """Serves a version; the digest of the bytes it loaded.

        Raises:
            StoreUnavailableError: the store cannot be reached.
            NoRoomError: there is no room for its bytes.
            StoreError: its bytes are damaged.
            CoreError: it does not load, or does not do what it should.
        """
        record = await self._threads.run(self._record, deployment)
        fetching = self._threads.submit(self._fetch, record)
        try:
            repository = await asyncio.wrap_future(fetching)
            loaded = await self._load(deployment, previous, record, repository)
        except BaseException:
            fetching.add_done_callback(lambda _: self._let_go(record))
            raise
        self._hold(record)
        return loaded

    async def _load(
        self,
        deployment: Deployment,
        previous: Deployment | None,
        record: VersionRecord,
        repository: Path,
    ) -> str:
        """Loads, checks and swaps in what was fetched; the digest of its bytes."""
        keeps = previous if previous is not None and not deployment.allow_breaking else None
        expected = await self._expected(keeps) if keeps else {}
        goldens = await self._threads.run(self._goldens, record, deployment)
        loaded = ""

        async def check(served: ServedVersion) -> ServedVersion:
            nonlocal loaded
            loaded = await self._threads.run(check_bytes, repository, record)
            _check_interface(expected, signature_of(served.config), keeps)
            await self._check_goldens(served, record, goldens)
            return with_digest(served, loaded)

        await self._models.deploy(
            record.model, repository, record.version, check, prepares=self._builds
        )
        return loaded

    async def withdraw(self, model: str) -> None:
        """Serves a model no more; requests that were accepted are finished."""
        await self._models.withdraw(model)

    def set_missing(self, models: frozenset[str]) -> None:
        """Which models should serve and do not."""
        self._models.missing = models

    async def close(self, timeout_s: float) -> bool:
        """Lets go of the cache; whether what was in a thread ended in time."""
        self._cache.close()
        return await self._threads.close(timeout_s)

    async def _expected(self, keeps: Deployment) -> Mapping[str, Any]:
        """The interface that must still be had, whatever became of its version since.

        A version that could not be inspected when it was pushed has the one it serves with.
        """
        known = (await self._threads.run(self._show, keeps)).signature
        live = self._models.serving_config(keeps.model, keeps.version)
        return known or (signature_of(live) if live is not None else {})

    def _show(self, deployment: Deployment) -> VersionRecord:
        from penstock.store.records import Reference

        return self._store.show(Reference(deployment.model, deployment.version))

    def _record(self, deployment: Deployment) -> VersionRecord:
        from penstock.store.failures import RefusedError

        record = self._show(deployment)
        if record.status in ("QUARANTINED", "REMOVED"):
            raise RefusedError(f"{record.reference} is {record.status.lower()}: {record.reason}")
        return record

    def _fetch(self, record: VersionRecord) -> Path:
        with self._quarantining(record):
            return self._cache.fetch(record, self._store.artifacts)

    def _goldens(
        self, record: VersionRecord, deployment: Deployment
    ) -> list[tuple[str, GoldenRequest]]:
        """Its requests; none where they cannot be had, and it has answered them before."""
        from penstock.store.failures import StoreUnavailableError
        from penstock.store.golden import read_golden

        read = self._store.artifacts.read
        try:
            with self._quarantining(record):
                contents = {g.name: read(g.sha256, _MAX_GOLDEN_BYTES) for g in record.goldens}
        except StoreUnavailableError as error:
            if deployment.status != "SERVING":
                raise
            text = "%s is not asked its golden requests, which it answered before: %s"
            _log.warning(text, record.reference, error)
            return []
        return [(name, read_golden(content, name)) for name, content in contents.items()]

    @contextmanager
    def _quarantining(self, record: VersionRecord) -> Iterator[None]:
        from penstock.store.failures import CorruptError

        try:
            yield
        except CorruptError as error:
            self._store.quarantine(record, str(error))
            raise

    async def _check_goldens(
        self, served: ServedVersion, record: VersionRecord, goldens: list[tuple[str, GoldenRequest]]
    ) -> None:
        """Asks the version under a name that no client can guess: it takes no traffic yet."""
        from penstock.store.golden import differences

        version = served.handle
        if not goldens:
            return
        if not isinstance(version, CoreVersion) or version.version is None:
            raise FailedPreconditionError("its golden requests cannot be asked: it is not started")
        engine, name = self._core.engine, f"{record.model} {os.urandom(16).hex()}"
        engine.set_serving(name, [version.version], [])
        try:
            for title, golden in goldens:
                got = await self._ask(name, record, title, golden)
                faults = list(differences(golden, parse_infer_response(got)))
                if faults:
                    text = "; ".join(faults)
                    raise FailedPreconditionError(f"golden request '{title}': {text}")
        finally:
            engine.forget(name)

    async def _ask(
        self, name: str, record: VersionRecord, title: str, golden: GoldenRequest
    ) -> bytes:
        inputs = [RawTensor(t.name, t.datatype, t.shape, t.data) for t in golden.inputs]
        request = build_infer_request(name, record.version, inputs)
        try:
            return await self._core.infer(request, deadline_ns(_GOLDEN_LIMIT_S), Caller.server())
        except CoreError as error:
            reason = error.message.replace(name, record.model)
            raise core_error(error.code, f"golden request '{title}' failed: {reason}") from error

    def _hold(self, record: VersionRecord) -> None:
        """Keeps what serves and what may still be finishing its requests; older ones may go."""
        held = self._held.setdefault(record.model, [])
        held[:] = [each for each in held if each.id != record.id] + [record]
        while len(held) > 2:
            self._cache.release(held.pop(0))

    def _let_go(self, record: VersionRecord) -> None:
        """Of what came to nothing, unless it serves, or did."""
        if record.id not in {each.id for each in self._held.get(record.model, ())}:
            self._cache.release(record)


def check_bytes(repository: Path, record: VersionRecord) -> str:
    """The digest of what was just loaded. Blocking.

    Raises:
        DataLossError: it is not what was fetched.
    """
    from penstock.store.cache import digest_of

    digest = digest_of(repository, record)
    if digest != record.digest:
        raise DataLossError(f"its files changed while they were loaded: {digest} was read")
    return digest


def _check_interface(
    old: Mapping[str, Any], new: Mapping[str, Any], previous: Deployment | None
) -> None:
    from penstock.store.signature import breaking_changes

    faults = breaking_changes(old, new)
    if faults and previous is not None:
        text = "; ".join(faults)
        raise FailedPreconditionError(
            f"its interface breaks clients of version {previous.version} (--allow-breaking "
            f"deploys it anyway): {text}"
        )


def with_digest(served: ServedVersion, digest: str) -> ServedVersion:
    """The version as it serves: its configuration says what it was loaded from."""
    if isinstance(served.handle, CoreVersion):
        served.handle.set_digest(digest)
    parameters = {**served.config.parameters, DIGEST_PARAMETER: digest}
    return replace(served, config=replace(served.config, parameters=parameters))


class StoreService:
    """What a server adds to follow a store; has the methods of a RepositoryPoller.

    Threading: confined to the event loop. Ownership: the store's connections, the follower.
    Lifecycle: constructed -> look -> start -> stop -> close.
    """

    def __init__(
        self, store: Store, cache: ArtifactCache, deployer: StoreDeployer, follower: StoreFollower
    ) -> None:
        self._store = store
        self._cache = cache
        self._deployer = deployer
        self._follower = follower
        self._listener: DeploymentListener | None = None
        self.stats = follower.stats

    async def look(self) -> None:
        """Opens the store and serves what is deployed.

        Raises:
            StartupError: the store cannot be read, or a model that should serve does not.
        """
        from penstock.store.failures import StoreError

        try:
            await asyncio.to_thread(self._store.open)
            await asyncio.to_thread(self._cache.open)
        except StoreError as error:
            raise StartupError(str(error)) from error
        await self._follower.look()

    def start(self) -> None:
        """Begins to follow."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._follower.wake)

        self._listener = self._store.listener(self._follower.environment, wake)
        if self._listener is not None:
            self._listener.start()
        self._follower.start()

    def stop(self) -> None:
        """Follows no more."""
        if self._listener is not None:
            self._listener.stop()
        self._follower.stop()

    async def poll(self) -> None:
        """One look, for tests and whoever cannot wait."""
        await self._follower.poll()

    async def close(self, timeout_s: float) -> bool:
        """Lets go of everything; whether that ended in time."""
        self.stop()
        has_ended = await self._follower.close(timeout_s)
        if self._listener is not None:
            has_ended = await asyncio.to_thread(self._listener.join, timeout_s) and has_ended
        has_ended = await self._deployer.close(timeout_s) and has_ended
        if has_ended:
            await asyncio.to_thread(self._store.close)
        return has_ended


def make_store_service(config: ServerConfig, core: Core, models: DeployedModels) -> StoreService:
    """Follows `config.environment` of `config.store`.

    Raises:
        StartupError: the store's packages are missing, or its URL is none.
    """
    try:
        from penstock.store.cache import ArtifactCache
        from penstock.store.failures import StoreError
        from penstock.store.follower import FollowerSettings, StoreFollower
        from penstock.store.records import check_name
        from penstock.store.reporter import StoreReporter
        from penstock.store.store import Store
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise StartupError(f"--store needs {package}: pip install 'penstock[store]'") from None
    server = name_of(config)
    try:
        check_name("environment", config.environment)
        store = Store(config.store, actor=server)
    except StoreError as error:
        raise StartupError(f"--store: {error}") from None
    cache = ArtifactCache(cache_directory(config), config.store_cache_bytes)
    deployer = StoreDeployer(store, cache, models, core, config.store_build_environments)
    settings = FollowerSettings(
        environment=config.environment,
        interval_s=config.store_poll_secs,
        exit_on_error=config.exit_on_error,
    )
    reporter = StoreReporter(store, config.environment, server)
    follower = StoreFollower(store, deployer, settings, reporter)
    return StoreService(store, cache, deployer, follower)


def name_of(config: ServerConfig) -> str:
    """What the store calls this server: another for another server.

    The same after a restart, unless its port is any free one: nothing tells two such apart.
    """
    scheme, is_socket, path = config.grpc_address.partition("unix:")
    if is_socket and not scheme:
        place = f"unix:{os.path.abspath(path)}"
    else:
        address = config.grpc_address or config.host
        port = config.grpc_port or f"any-{os.getpid()}-{os.urandom(4).hex()}"
        place = f"{port}" if address in _USUAL else f"{address}:{port}"
    return f"{socket.gethostname()}/{config.server_name}:{place}"[:255]


def cache_directory(config: ServerConfig) -> Path:
    """Where fetched artifacts are: by default in the user's cache."""
    if config.store_cache:
        return Path(config.store_cache)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "penstock" / "artifacts"
