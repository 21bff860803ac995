"""`penstock gateway`: HTTP in front of a fleet of servers, in a process without a core."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from typing import Any

from penstock.frontend.addresses import is_loopback
from penstock.frontend.http import metrics_routes
from penstock.frontend.http_server import HttpServer
from penstock.frontend.https import http_tls, metrics_tls
from penstock.gateway.config import GatewayConfig
from penstock.gateway.fleet_metrics import render_fleet
from penstock.gateway.observed import HttpCounters, Observed, refusals
from penstock.gateway.options import gateway_options
from penstock.gateway.upstream_tls import UpstreamTls
from penstock.lifecycle import EXIT_FAILURE, pass_time, run_to_exit_code, serve_until_signal
from penstock.observe.access import AccessLog
from penstock.observe.log import LogSettings, set_up_logging
from penstock_gateway.app import Gateway
from penstock_gateway.grpc_upstream import GrpcUpstream
from penstock_gateway.pool import Pool, PoolOptions, Replica
from penstock_gateway.protocol import make_protocol

__all__ = ["EXIT_FAILURE", "FleetGateway", "run"]

_log = logging.getLogger(__name__)


class FleetGateway:
    """The pool, the application and its server.

    Threading: confined to the event loop it was made on.
    Lifecycle: start -> stop; stop also after a failed or interrupted start.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._upstream_tls = UpstreamTls(config) if config.upstream_use_ssl else None
        self._upstreams = _make_upstreams(config, self._upstream_tls)
        self.pool = _make_pool(config, self._upstreams)
        self.counters = HttpCounters()
        self._access_log = AccessLog() if config.access_log else None
        options = gateway_options(config)
        self.http = HttpServer(
            Observed(Gateway(self.pool, options), self.counters, self._access_log),
            config.host,
            config.http_port,
            "HTTP",
            protocol=make_protocol(options, refusals(self.counters, self._access_log)),
            tls=http_tls(config),
            max_connections=config.http_max_connections,
        )
        self.metrics: HttpServer | None = None
        if config.metrics_port >= 0:
            host = config.metrics_host or config.host
            routes = metrics_routes(self._render)
            self.metrics = HttpServer(
                routes, host, config.metrics_port, "metrics", tls=metrics_tls(config)
            )

    async def start(self) -> None:
        """Returns once it serves, whether or not a server can be reached.

        Raises:
            StartupError: the port is taken, or certificates will not do.
        """
        self.http.bind()
        if self.metrics is not None:
            self.metrics.bind()
            await self.metrics.start()
        if not is_loopback(self._config.host) and not self._config.http_use_ssl:
            _log.warning("HTTP listens on %s, beyond loopback, without TLS", self.http.address)
        await self.pool.start()
        if self._upstream_tls is not None:
            self._upstream_tls.start(self._renew)
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
        if self._upstream_tls is not None:
            await self._upstream_tls.stop()
        await self.pool.stop()
        if self.metrics is not None:
            await self.metrics.stop()
        if self._access_log is not None:
            await asyncio.to_thread(self._access_log.close)

    def _renew(self, credentials: Any) -> None:
        for upstream in self._upstreams.values():
            upstream.renew(credentials)

    def _render(self) -> tuple[str, bytes]:
        log = self._access_log
        return render_fleet(self.pool, self.counters, lambda: 0 if log is None else log.dropped)


def run(config: GatewayConfig) -> int:
    """Serves until SIGTERM or SIGINT.

    Returns:
        Exit code: 0 after an orderly end, EXIT_FAILURE when it could not start.
    """
    set_up_logging(LogSettings.of(config.log_level, config.log_format))
    return run_to_exit_code(lambda: _serve(config))


async def _serve(config: GatewayConfig) -> None:
    def grace_s(number: signal.Signals) -> float:
        return config.shutdown_grace_secs if number == signal.SIGTERM else 0.0

    await serve_until_signal(FleetGateway(config), grace_s)


def _make_upstreams(config: GatewayConfig, tls: UpstreamTls | None) -> dict[str, GrpcUpstream]:
    """By address."""
    credentials = None if tls is None else tls.credentials
    timeout_s = config.upstream_timeout_secs or None
    return {
        each: GrpcUpstream(each, credentials, infer_timeout_s=timeout_s)
        for each in config.addresses()
    }


def _make_pool(config: GatewayConfig, upstreams: Mapping[str, GrpcUpstream]) -> Pool:
    replicas = [Replica(address, each) for address, each in upstreams.items()]
    options = PoolOptions(
        probe_interval_s=config.upstream_probe_secs,
        max_waiting=config.max_waiting,
        max_waiting_bytes=config.max_waiting_bytes,
        wait_timeout_s=config.max_waiting_secs,
        max_attempts=config.max_attempts,
    )
    return Pool(replicas, options)
