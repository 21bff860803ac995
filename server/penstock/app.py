"""The only place that wires objects together, and the order in which they start and stop.

Up:   logging, core, ports, servers, models, READY.
Down: readiness, grace, refuse, transport, models, core, HTTP (`penstock.lifecycle.stop_in_order`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import uvloop

from penstock import __version__
from penstock.config import ServerConfig
from penstock.core import Core, set_logging
from penstock.errors import StartupError
from penstock.frontend.grpcio import GrpcioTransport
from penstock.frontend.health import register_health
from penstock.frontend.http import health_routes, metrics_routes
from penstock.frontend.http_server import HttpServer
from penstock.frontend.inference import InferenceHandlers
from penstock.frontend.readiness import Readiness
from penstock.frontend.reflection import register_reflection
from penstock.frontend.service import ControlHandlers, method_handlers, register
from penstock.lifecycle import Lifecycle, State, StopSignals, stop_in_order
from penstock.observe.log import set_up_logging
from penstock.observe.metrics import Metrics
from penstock.repository.check import CheckReport, check_repository
from penstock.repository.core_engine import CoreEngine
from penstock.repository.manager import ModelManager
from penstock.repository.settings import RepositorySettings

__all__ = ["EXIT_FAILURE", "App", "check", "run"]

EXIT_FAILURE = 1

_log = logging.getLogger("penstock.app")

_ENGINE_LIBRARIES = {"onnxruntime": "capi", "openvino": "libs"}
"""Wheels of engines, named as their backends, and where in them their libraries lie."""
_PLUGINS = Path(__file__).parent / "backends"


class App:
    """A server: every object of it, from start to stop.

    Threading: confined to the event loop it was made on.
    Ownership: owns everything it wires.
    Lifecycle: `lifecycle` (penstock.lifecycle.TRANSITIONS); start -> stop, stop also after a failed
    or interrupted start.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.lifecycle = Lifecycle()
        self.core = _make_core(config)
        self.readiness = Readiness(lambda: self.models.all_ready())
        self.models = ModelManager(
            CoreEngine(self.core), _repository_settings(config), self.readiness.announce
        )
        self.grpc = self._make_grpc() if config.allow_grpc else None
        self.http = self._make_http() if config.allow_http else None
        self.metrics = self._make_metrics() if config.allow_metrics else None

    async def start(self) -> None:
        """Returns once the server is READY.

        Raises:
            StartupError: a port is taken, a repository cannot be read, or a model did not load.
        """
        self.core.start()
        servers = [each for each in (self.grpc, self.http, self.metrics) if each is not None]
        for server in servers:
            server.bind()
        for server in servers:
            await server.start()
        _log.info("loading models; %s", self._describe_addresses())
        await self.models.start()
        self.readiness.start()
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
        """First rung down: readiness."""
        self.readiness.withdraw()

    def stop_accepting(self) -> None:
        """Second rung: nothing new."""
        self.core.engine.stop_accepting()
        self.readiness.close()

    async def stop_transport(self, timeout_s: float) -> None:
        """Third rung: gRPC."""
        if self.grpc is not None:
            await self.grpc.stop(timeout_s)

    async def stop_models(self, timeout_s: float) -> bool:
        """Fourth rung: models."""
        return await self.models.close(timeout_s)

    async def stop_core(self, timeout_s: float) -> bool:
        """Fifth rung: the core's threads."""
        return await self.core.close(timeout_s)

    async def stop_http(self) -> None:
        """Last rung: probes and metrics."""
        servers = [each for each in (self.http, self.metrics) if each is not None]
        await asyncio.gather(*(server.stop() for server in servers))

    def _make_grpc(self) -> GrpcioTransport:
        transport = GrpcioTransport(self.config)
        inference = InferenceHandlers(
            self.core, self.readiness, self.config.max_inflight_per_stream
        )
        control = ControlHandlers(
            self.models,
            self.readiness,
            server_name=self.config.server_name,
            server_version=self.config.server_version,
        )
        register(transport.server, method_handlers(inference, control, self.core.admit))
        register_health(transport.server, self.readiness)
        register_reflection(transport.server, self.readiness)
        return transport

    def _make_http(self) -> HttpServer:
        host = self.config.http_address or self.config.host
        return HttpServer(health_routes(self.readiness), host, self.config.http_port, "HTTP")

    def _make_metrics(self) -> HttpServer:
        metrics = Metrics(
            versions=self.models.statistics,
            engine=self.core.infer_stats,
            is_ready=lambda: self.readiness.is_ready,
        )
        host = self.config.metrics_address or self.config.host
        port = self.config.metrics_port
        return HttpServer(metrics_routes(metrics.render), host, port, "metrics")

    def _describe_addresses(self) -> str:
        servers = {"gRPC": self.grpc, "HTTP": self.http, "metrics": self.metrics}
        return ", ".join(f"{name} {each.address}" for name, each in servers.items() if each)


def run(config: ServerConfig) -> int:
    """Serves until SIGTERM or SIGINT; what `penstock serve` does.

    Returns:
        Exit code: 0 after an orderly end, EXIT_FAILURE when the server could not start.
    """
    set_logging(set_up_logging(config.log_level, config.log_format), config.log_format == "json")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config))
    except StartupError as error:
        _log.error("cannot start: %s", error)
        return EXIT_FAILURE
    return 0


def check(config: ServerConfig) -> CheckReport:
    """Validates the repositories without serving them; what `penstock check` does.

    Blocking: opens every model file.

    Raises:
        StartupError: a repository cannot be read.
    """
    core = _make_core(config)
    try:
        return check_repository(CoreEngine(core), _repository_settings(config))
    finally:
        core.engine.shutdown()


async def _serve(config: ServerConfig) -> None:
    app = App(config)
    with StopSignals() as signals:
        started = asyncio.create_task(app.start())
        ending = asyncio.create_task(signals.wait())
        await asyncio.wait({started, ending}, return_when=asyncio.FIRST_COMPLETED)
        grace_s = 0.0
        try:
            if not started.done():
                _log.info("interrupted while starting")
                started.cancel()
            elif started.exception() is None:
                number = await ending
                grace_s = config.shutdown_grace_secs if number == signal.SIGTERM else 0.0
                _log.info("%s: draining", number.name)
            await asyncio.gather(started, return_exceptions=True)
        finally:
            ending.cancel()
            if not await app.stop(grace_s):
                _end_by_force()
        if not started.cancelled():
            started.result()
        _log.info("stopped")


def _end_by_force() -> NoReturn:
    """A thread is stuck in a model, and the interpreter would wait for it."""
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)


def _make_core(config: ServerConfig) -> Core:
    directories = [str(_PLUGINS), *(str(each) for each in config.backend_directory)]
    core = Core(
        backend_directories=directories,
        max_inflight_requests=config.max_inflight_requests,
        max_request_bytes=config.max_message_bytes,
    )
    options = config.backend_options()
    for backend, folder in _ENGINE_LIBRARIES.items():
        library = _package_directory(backend)
        if library is not None:
            options.setdefault(backend, {}).setdefault("library", str(library / folder))
    for backend, values in options.items():
        core.engine.set_backend_options(backend, values)
    return core


def _package_directory(package: str) -> Path | None:
    """Where a wheel lies. It is found and not imported: engines are heavy."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _repository_settings(config: ServerConfig) -> RepositorySettings:
    return RepositorySettings(
        paths=config.model_repository,
        control_mode=config.model_control_mode,
        load_models=config.load_model,
        exit_on_error=config.exit_on_error,
        strict_readiness=config.strict_readiness,
        load_threads=config.model_load_thread_count,
        drain_timeout_s=config.exit_timeout_secs,
        backend_directories=(_PLUGINS, *config.backend_directory),
    )
