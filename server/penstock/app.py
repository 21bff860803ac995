"""The only place that wires objects together, and the order in which they start and stop.

Up:   logging, core, ports, servers, models, servers on inherited sockets, READY.
Down: readiness, grace, turn away, refuse, transport, models, core, HTTP
(`penstock.lifecycle.stop_in_order`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock import __version__
from penstock.access.door import Door
from penstock.client_memory import ClientMemory
from penstock.codec import JOBS_SERVICE_NAME
from penstock.config import ServerConfig
from penstock.core import HAS_TRANSPORT, Core, set_logging
from penstock.frontend.addresses import is_loopback
from penstock.frontend.gate import Gate
from penstock.frontend.grpcio import GrpcioTransport
from penstock.frontend.health import register_health
from penstock.frontend.http import metrics_routes
from penstock.frontend.http_server import HttpServer
from penstock.frontend.https import metrics_tls
from penstock.frontend.jobs import register_jobs
from penstock.frontend.listeners import Inherited
from penstock.frontend.native import NativeTransport, is_native_chosen
from penstock.frontend.readiness import Readiness
from penstock.frontend.reflection import register_reflection
from penstock.frontend.service import register
from penstock.gateway.embedded import Watching, make_http
from penstock.gateway.observed import HttpCounters
from penstock.handlers import make_handlers
from penstock.lifecycle import Lifecycle, State, stop_in_order
from penstock.observe.access import AccessLog
from penstock.observe.log import LogSettings, apply_settings
from penstock.observe.log_control import LogControl
from penstock.observe.metrics import GpuMonitor, Metrics
from penstock.repository.availability import AvailabilityWatch
from penstock.repository.check import CheckReport, check_repository
from penstock.repository.core_engine import CoreEngine
from penstock.wiring import (
    make_core,
    make_instance_scaler,
    make_models,
    make_poller,
    repository_settings,
)

if TYPE_CHECKING:
    from penstock.jobs.manager import JobManager

__all__ = ["App", "apply_log_settings", "check", "log_settings"]

_log = logging.getLogger("penstock.app")


class App:
    """A server: every object of it, from start to stop.

    Threading: confined to the event loop it was made on.
    Ownership: owns everything it wires.
    Lifecycle: `lifecycle` (penstock.lifecycle.TRANSITIONS); start -> stop, stop also after a failed
    or interrupted start.

    Attributes:
        is_followed: another process serves with the same listening sockets.
    """

    def __init__(self, config: ServerConfig, inherited: Inherited | None = None) -> None:
        """`inherited`: listening sockets that are there already."""
        self.config = config
        self.inherited = inherited or Inherited()
        self.is_followed = False
        self.lifecycle = Lifecycle()
        self.core = make_core(config)
        self.client_memory = ClientMemory(self.core)
        self.door = Door(config, self.core.access)
        self.readiness = Readiness(lambda: self.models.all_ready())
        self.models = make_models(config, self.core, self.readiness.announce)
        self.availability = AvailabilityWatch(self.models.unavailable, self.readiness.announce)
        self.instances = make_instance_scaler(config, self.models)
        self.jobs = self._make_jobs() if config.jobs_root else None
        self.poller = make_poller(config, self.core, self.models)
        self.gate = Gate(self.core.access, self.door.verifier)
        logs = LogControl(log_settings(config), apply_log_settings)
        self.handlers = make_handlers(
            config, self.core, self.client_memory, self.models, self.readiness, self.gate, logs
        )
        self.access_log = AccessLog() if config.access_log else None
        self.http_counters = HttpCounters()
        self.grpc = self._make_grpc() if config.allow_grpc else None
        self.http = self._make_http() if config.allow_http else None
        self.gpus = GpuMonitor()
        self.metrics = self._make_metrics() if config.allow_metrics else None

    async def start(self) -> None:
        """Returns once the server is READY.

        Raises:
            StartupError: a port is taken, a repository cannot be read, or a model did not load.
        """
        self.core.start()
        await self.door.start()
        servers = self._servers()
        late = [servers[side] for side in servers if self.inherited.has(side)]
        for side, server in servers.items():
            server.bind(self.inherited.of(side))
        self._warn_if_exposed()
        for server in servers.values():
            if server not in late:
                await server.start()
        _log.info("loading models; %s", self._describe_addresses())
        if self.poller is not None:
            await self.poller.look()
        self.core.watch_demands(self.models.on_demand)
        await self.models.start()
        self.availability.start()
        self.instances.start()
        if self.metrics is not None:
            self.gpus.start()
        if self.poller is not None:
            self.poller.start()
        if self.jobs is not None:
            await self.jobs.start()
        if self.grpc is not None:
            self.grpc.set_loaded()
        self.readiness.start()
        for server in late:  # whoever connects before waits: in the socket, or for the predecessor
            await server.start()
        self.lifecycle.move(State.READY)
        _log.info("penstock %s is ready: %s", __version__, self._describe_addresses())
        if not self.readiness.is_ready:
            _log.warning("probes are told 'not ready': a model failed, and readiness is strict")

    async def stop(self, grace_s: float = 0.0) -> bool:
        """Drains and stops.

        Args:
            grace_s: how long to serve on with readiness false.

        Returns:
            Whether everything ended in time.
        """
        was_ready = self.lifecycle.state is State.READY
        if was_ready:
            self.lifecycle.move(State.DRAINING)
        is_clean = await stop_in_order(
            self, grace_s=grace_s if was_ready else 0.0, timeout_s=self.config.exit_timeout_secs
        )
        self.lifecycle.move(State.STOPPED)
        return is_clean

    def withdraw(self) -> None:
        """First rung down: readiness. What is served then stays as it is.

        Where a successor serves at the same address that stays ready, and clients go there at once.
        """
        if self.is_followed:
            self.turn_away()
        else:
            self.readiness.withdraw()
        if self.http is not None:
            self.http.withdraw()
        self.availability.stop()
        self.instances.stop()
        if self.poller is not None:
            self.poller.stop()

    def turn_away(self) -> None:
        """Second rung: clients are told to make new calls elsewhere; what they made is served."""
        for server in self._servers().values():
            server.turn_away()

    def listeners(self) -> Mapping[str, Sequence[socket.socket]]:
        """The listening sockets by side."""
        return {side: server.listeners for side, server in self._servers().items()}

    def hand_over(self) -> None:
        """Another process serves with the same listening sockets: they are left as they are."""
        self.is_followed = True
        for server in self._servers().values():
            server.share()

    def stop_accepting(self) -> None:
        """Third rung: nothing new."""
        self.core.engine.stop_accepting()
        self.readiness.close()
        if self.grpc is not None:
            self.grpc.close_streams()
        if self.lifecycle.state is State.DRAINING:
            _log.info("new requests are refused; those in flight may finish")

    async def stop_transport(self, timeout_s: float) -> None:
        """Fourth rung: jobs, which go on when the server is started again, and what is called."""
        if self.jobs is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.jobs.close(), timeout_s)
        ends = [] if self.grpc is None else [self.grpc.stop(timeout_s)]
        ends += [] if self.http is None else [self.http.drain(timeout_s)]
        await asyncio.gather(*ends)

    async def stop_models(self, timeout_s: float) -> bool:
        """Fifth rung: models, and who loads them."""
        if self.poller is None:
            return await self.models.close(timeout_s)
        ended = await asyncio.gather(self.poller.close(timeout_s), self.models.close(timeout_s))
        return all(ended)

    async def stop_core(self, timeout_s: float) -> bool:
        """Sixth rung: the core's threads, and those that are in a GPU's driver."""
        await self.door.stop()
        ended = await asyncio.gather(
            self.client_memory.close(timeout_s), self.core.close(timeout_s)
        )
        return all(ended)

    async def stop_http(self) -> None:
        """Last rung: probes and metrics."""
        self.gpus.stop()
        servers = [each for each in (self.http, self.metrics) if each is not None]
        await asyncio.gather(*(server.stop() for server in servers))
        if self.access_log is not None:
            await asyncio.to_thread(self.access_log.close)

    def _servers(self) -> dict[str, GrpcioTransport | NativeTransport | HttpServer]:
        sides = {"grpc": self.grpc, "http": self.http, "metrics": self.metrics}
        return {side: server for side, server in sides.items() if server is not None}

    def _make_grpc(self) -> GrpcioTransport | NativeTransport:
        transport = _make_transport(self.config, self.core, self.gate, self.access_log)
        register(transport.server, self.handlers)
        register_health(transport.server, self.readiness, self.gate)
        services = []
        if self.jobs is not None:
            register_jobs(transport.server, self.jobs, self.readiness, self.gate)
            services.append(JOBS_SERVICE_NAME)
        register_reflection(transport.server, self.readiness, self.gate, services)
        return transport

    def _make_jobs(self) -> JobManager:
        from penstock.batch import make_jobs  # pyarrow is for those who want jobs

        return make_jobs(self.config, self.core, self.models)

    def _make_http(self) -> HttpServer:
        watching = Watching(self.http_counters, self.access_log)
        return make_http(self.config, self.readiness, self.handlers, self.gate, watching)

    def _make_metrics(self) -> HttpServer:
        metrics = Metrics(
            versions=self.models.statistics,
            engine=self.core.infer_stats,
            is_ready=lambda: self.readiness.is_ready,
            jobs=self.jobs.stats if self.jobs is not None else None,
            store=getattr(self.poller, "stats", None),
            instances=self.instances.stats,
            memory=self.models.memory,
            engines=self.models.engines,
            transport=lambda: {} if self.grpc is None else self.grpc.stats(),
            http=self.http_counters.families,
            unlogged=lambda: 0 if self.access_log is None else self.access_log.dropped,
            gpus=self.gpus.families,
            peaks=self.config.peaks(),
        )
        host = self.config.metrics_address or self.config.host
        port = self.config.metrics_port
        routes = metrics_routes(metrics.render)
        return HttpServer(routes, host, port, "metrics", tls=metrics_tls(self.config))

    def _warn_if_exposed(self) -> None:
        """Whoever reaches the port may use it, and the operator should have meant that."""
        config = self.config
        if self.grpc is None or is_loopback(config.grpc_address or config.host):
            return
        lacks = []
        if not config.grpc_use_ssl:
            lacks.append("TLS")
        if not (config.needs_identity or config.grpc_use_ssl_mutual):
            lacks.append("asking callers who they are")
        if lacks:
            _log.warning(
                "gRPC listens on %s, beyond loopback, without %s",
                self.grpc.address,
                " and without ".join(lacks),
            )

    def _describe_addresses(self) -> str:
        servers = {"gRPC": self.grpc, "HTTP": self.http, "metrics": self.metrics}
        return ", ".join(f"{name} {each.address}" for name, each in servers.items() if each)


def check(config: ServerConfig, *, prepare: bool = False) -> CheckReport:
    """Validates the repositories without serving them; what `penstock check` does.

    Blocking: opens every model file. With `prepare` it first builds the environments of Python
    models.

    Raises:
        StartupError: a repository cannot be read.
    """
    core = make_core(config)
    try:
        settings = repository_settings(config)
        return check_repository(CoreEngine(core), settings, prepare=prepare)
    finally:
        core.engine.shutdown()


def _make_transport(
    config: ServerConfig, core: Core, gate: Gate, access_log: AccessLog | None
) -> GrpcioTransport | NativeTransport:
    """What carries gRPC; StartupError where it cannot be what is asked for."""
    if is_native_chosen(config.transport, is_built=HAS_TRANSPORT):
        return NativeTransport(config, core.make_transport, gate)
    return GrpcioTransport(config, access_log)


def log_settings(config: ServerConfig) -> LogSettings:
    """How the settings have the log."""
    return LogSettings.of(config.log_level, config.log_format)


def apply_log_settings(settings: LogSettings) -> None:
    """From now on both languages log so."""
    apply_settings(settings)
    _set_core_logging(settings)


def _set_core_logging(settings: LogSettings) -> None:
    set_logging(
        debug=settings.verbose_level > 0,
        info=settings.info,
        warning=settings.warning,
        error=settings.error,
        json=settings.json,
    )
