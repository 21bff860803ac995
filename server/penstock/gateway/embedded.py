"""The HTTP side of a server: probes at once, the rest of the protocol by the gateway.

Most servers are asked over HTTP how they are, and over gRPC for everything else: the gateway's
libraries (starlette, numpy, orjson) are imported when the first other request comes.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping
from typing import Any

from penstock.config import ServerConfig
from penstock.frontend.addresses import is_loopback
from penstock.frontend.gate import Gate
from penstock.frontend.http import Receive, Routes, Scope, Send, health_routes
from penstock.frontend.http_server import HttpServer
from penstock.frontend.readiness import Readiness
from penstock.gateway.in_process import InProcessUpstream
from penstock.gateway.options import gateway_options
from penstock_gateway.options import Options
from penstock_gateway.protocol import make_protocol

__all__ = ["EmbeddedGateway", "make_http"]

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


def make_http(
    config: ServerConfig, readiness: Readiness, handlers: Mapping[str, Any], gate: Gate
) -> HttpServer:
    """The HTTP side as the settings say it.

    Under mutual TLS it is health only: HTTP asks for no certificate, and would be the way around.
    """
    host = config.http_address or config.host
    if config.http_api == "health" or config.grpc_use_ssl_mutual:
        if config.http_api != "health":
            _log.info("HTTP serves health only: callers are asked for certificates, on gRPC")
        return HttpServer(health_routes(readiness), host, config.http_port, "HTTP")
    if not is_loopback(host):
        lacks = "" if config.needs_identity else " and without asking callers who they are"
        _log.warning("HTTP serves models on %s, beyond loopback, without TLS%s", host, lacks)
    options = gateway_options(config)
    application = EmbeddedGateway(readiness, handlers, gate, options)
    protocol = make_protocol(options)
    return HttpServer(application, host, config.http_port, "HTTP", protocol=protocol)
