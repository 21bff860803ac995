"""`penstock gateway`: HTTP in front of a fleet of servers, in a process without a core."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import uvloop

from penstock.errors import StartupError
from penstock.frontend.addresses import is_loopback
from penstock.frontend.http import metrics_routes
from penstock.frontend.http_server import HttpServer
from penstock.gateway.config import GatewayConfig
from penstock.gateway.options import gateway_options
from penstock.lifecycle import StopSignals, pass_time
from penstock.observe.exposition import CONTENT_TYPE, Family, render
from penstock.observe.log import LogSettings, set_up_logging
from penstock_gateway.app import Gateway
from penstock_gateway.grpc_upstream import GrpcUpstream, channel_credentials
from penstock_gateway.pool import Pool, PoolOptions, Replica
from penstock_gateway.protocol import make_protocol

__all__ = ["EXIT_FAILURE", "FleetGateway", "run"]

EXIT_FAILURE = 1

_log = logging.getLogger(__name__)


class FleetGateway:
    """The pool, the application and its server.

    Threading: confined to the event loop it was made on.
    Lifecycle: start -> stop; stop also after a failed or interrupted start.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self.pool = _make_pool(config)
        options = gateway_options(config)
        self.http = HttpServer(
            Gateway(self.pool, options),
            config.host,
            config.http_port,
            "HTTP",
            protocol=make_protocol(options),
        )
        self.metrics: HttpServer | None = None
        if config.metrics_port >= 0:
            host = config.metrics_host or config.host
            routes = metrics_routes(lambda: _render(self.pool))
            self.metrics = HttpServer(routes, host, config.metrics_port, "metrics")

    async def start(self) -> None:
        """Returns once it serves, whether or not a server can be reached.

        Raises:
            StartupError: the port is taken.
        """
        self.http.bind()
        if self.metrics is not None:
            self.metrics.bind()
            await self.metrics.start()
        if not is_loopback(self._config.host):
            _log.warning("HTTP listens on %s, beyond loopback, without TLS", self.http.address)
        await self.pool.start()
        await self.http.start()
        more = f", metrics {self.metrics.address}" if self.metrics is not None else ""
        _log.info("gateway is ready: HTTP %s%s", self.http.address, more)

    async def stop(self, grace_s: float = 0.0) -> None:
        """Readiness false, the grace, then no new connections; what is under way has its time."""
        self.pool.withdraw()
        self.http.withdraw()
        if grace_s > 0:
            _log.info("not ready any more; serving on for %g s", grace_s)
            await pass_time(grace_s)
        await self.http.stop(self._config.exit_timeout_secs)
        await self.pool.stop()
        if self.metrics is not None:
            await self.metrics.stop()


def run(config: GatewayConfig) -> int:
    """Serves until SIGTERM or SIGINT.

    Returns:
        Exit code: 0 after an orderly end, EXIT_FAILURE when it could not start.
    """
    set_up_logging(LogSettings.of(config.log_level, config.log_format))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config))
    except StartupError as error:
        _log.error("cannot start: %s", error)
        return EXIT_FAILURE
    return 0


async def _serve(config: GatewayConfig) -> None:
    gateway = FleetGateway(config)
    with StopSignals() as signals:
        grace_s = 0.0
        started = asyncio.create_task(gateway.start())
        ending = asyncio.create_task(signals.wait())
        try:
            await asyncio.wait({started, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                started.cancel()
            elif started.exception() is None:
                number = await ending
                grace_s = config.shutdown_grace_secs if number == signal.SIGTERM else 0.0
                _log.info("%s: draining", number.name)
            await asyncio.gather(started, return_exceptions=True)
        finally:
            ending.cancel()
            await gateway.stop(grace_s)
        if not started.cancelled():
            started.result()
    _log.info("stopped")


def _render(pool: Pool) -> tuple[str, bytes]:
    """What tells a scaler at zero replicas that there should be one."""
    usable = sum(each.is_usable for each in pool.replicas)
    values = {
        "penstock_gateway_waiting_requests": (pool.waiting, "Requests held while no server is up"),
        "penstock_gateway_waiting_bytes": (pool.waiting_bytes, "Bytes of these requests"),
        "penstock_gateway_usable_servers": (usable, "Servers that take requests"),
    }
    families = []
    for name, (value, text) in values.items():
        families.append(Family(name, text, "gauge"))
        families[-1].add({}, value)
    return CONTENT_TYPE, render(families)


def _make_pool(config: GatewayConfig) -> Pool:
    credentials = _credentials(config) if config.upstream_use_ssl else None
    timeout_s = config.upstream_timeout_secs or None
    replicas = [
        Replica(each, GrpcUpstream(each, credentials, infer_timeout_s=timeout_s))
        for each in config.addresses()
    ]
    options = PoolOptions(
        probe_interval_s=config.upstream_probe_secs,
        max_waiting=config.max_waiting,
        max_waiting_bytes=config.max_waiting_bytes,
        wait_timeout_s=config.max_waiting_secs,
        max_attempts=config.max_attempts,
    )
    return Pool(replicas, options)


def _credentials(config: GatewayConfig) -> Any:
    def read(path: str) -> bytes | None:
        try:
            return Path(path).read_bytes() if path else None
        except OSError as error:
            raise StartupError(f"cannot read {path}: {error.strerror}") from None

    return channel_credentials(
        read(config.upstream_root_cert),
        read(config.upstream_client_key),
        read(config.upstream_client_cert),
    )
