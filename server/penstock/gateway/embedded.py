"""The HTTP side of a server: probes at once, the rest of the protocol by the gateway.

Most servers are asked over HTTP how they are, and over gRPC for everything else: the gateway's
libraries (starlette, numpy, orjson) are imported when the first other request comes.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.config import ServerConfig
from penstock.frontend.addresses import is_loopback
from penstock.frontend.gate import Gate
from penstock.frontend.http import Application, Receive, Routes, Scope, Send, health_routes
from penstock.frontend.http_server import HttpServer
from penstock.frontend.https import http_tls
from penstock.frontend.readiness import Readiness
from penstock.gateway.in_process import InProcessUpstream
from penstock.gateway.observed import HttpCounters, Observed, refusals
from penstock.gateway.options import gateway_options
from penstock.observe.access import AccessLog
from penstock_gateway.options import Options
from penstock_gateway.protocol import OnRefused, make_protocol

__all__ = ["EmbeddedGateway", "Watching", "make_http"]

_log = logging.getLogger(__name__)

_PROBES = ("/v2/health/live", "/v2/health/ready")


class EmbeddedGateway:
    """An ASGI application.

    Threading: confined to the event loop; what is imported is so in a thread.
    Ownership: borrows the handlers, the readiness and the gate.
    """

    def __init__(
        self, readiness: Readiness, handlers: Mapping[str, Any], gate: Gate, options: Options
    ) -> None:
        """`handlers`: grpc.RpcMethodHandler by RPC, from bytes to bytes."""
        self._probes: Routes = health_routes(readiness)
        self._upstream = InProcessUpstream(handlers, readiness, gate)
        self._options = options
        self._gateway: Any = None
        self._importing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http" and scope["path"] in _PROBES:
            await self._probes(scope, receive, send)
            return
        if self._gateway is None:
            await self._import()
        await self._gateway(scope, receive, send)

    async def _import(self) -> None:
        async with self._importing:
            if self._gateway is None:
                module = await asyncio.to_thread(importlib.import_module, "penstock_gateway.app")
                self._gateway = module.Gateway(self._upstream, self._options)


@dataclass(frozen=True, slots=True)
class Watching:
    """Who watches what is asked over HTTP.

    Attributes:
        counters: of requests.
        access_log: None = nobody asks for one.
    """

    counters: HttpCounters
    access_log: AccessLog | None = None

    @property
    def on_refused(self) -> OnRefused:
        """For what is answered before it reaches an application."""
        return refusals(self.counters, self.access_log)

    def around(self, application: Application) -> Application:
        """The application, watched."""
        return Observed(application, self.counters, self.access_log)


def make_http(
    config: ServerConfig,
    readiness: Readiness,
    handlers: Mapping[str, Any],
    gate: Gate,
    watching: Watching,
) -> HttpServer:
    """The HTTP side as the settings say it.

    Where gRPC asks for certificates and HTTP does not, HTTP is health only: it would be the way
    around.
    """
    host = config.http_address or config.host
    tls = http_tls(config)
    is_way_around = config.grpc_use_ssl_mutual and not config.http_use_ssl_mutual
    if config.http_api == "health" or is_way_around:
        if config.http_api != "health":
            _log.info("HTTP serves health only: callers are asked for certificates, on gRPC")
        probes = watching.around(health_routes(readiness))
        return HttpServer(
            probes, host, config.http_port, "HTTP", tls=tls, on_refused=watching.on_refused
        )
    _warn_if_exposed(config, host)
    options = gateway_options(config)
    application = watching.around(EmbeddedGateway(readiness, handlers, gate, options))
    return HttpServer(
        application,
        host,
        config.http_port,
        "HTTP",
        protocol=make_protocol(options, watching.on_refused),
        tls=tls,
        max_connections=config.http_max_connections,
    )


def _warn_if_exposed(config: ServerConfig, host: str) -> None:
    if is_loopback(host):
        return
    lacks = [] if config.http_use_ssl else ["TLS"]
    if not (config.needs_identity or config.http_use_ssl_mutual):
        lacks.append("asking callers who they are")
    if lacks:
        text = "HTTP serves models on %s, beyond loopback, without %s"
        _log.warning(text, host, " and without ".join(lacks))
