"""The gateway as an ASGI application: its routes, and what becomes of failures."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from penstock_gateway import control, docs, inference, jsons
from penstock_gateway.body import Budget
from penstock_gateway.errors import ClientGoneError, HttpError, as_http_error
from penstock_gateway.exchange import INFERENCE_HEADER, Exchange
from penstock_gateway.generate import generate, generate_stream
from penstock_gateway.metadata import MetadataFilter
from penstock_gateway.options import Options
from penstock_gateway.protocol import CANCEL, ROUTE
from penstock_gateway.upstream import Upstream, UpstreamError

__all__ = ["Gateway"]

Handler = Callable[[Exchange], Awaitable[None]]

_log = logging.getLogger(__name__)

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
"""The one path that is not left to Starlette, whose layers and routes took a sixth of it."""


class Gateway:
    """Answers HTTP by calling an upstream.

    Threading: confined to the event loop.
    Ownership: borrows the upstream.
    Cost: bodies are held whole, within `Options.max_buffered_bytes`.
    """

    def __init__(self, upstream: Upstream, options: Options) -> None:
        self._upstream = upstream
        self._options = options
        self._budget = Budget(options.max_buffered_bytes)
        self._metadata = MetadataFilter(options.forward_headers)
        self._infer = self._endpoint(inference.infer_model, "ModelInfer", f"{_MODEL}/infer")
        self.routes = self._routes()
        self._app = Starlette(
            routes=self.routes,
            exception_handlers={HTTPException: _show_http_exception},
            middleware=_cors(options.cors_origins),
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":  # no lifespan, no websockets
            return
        found = _INFER.fullmatch(scope["path"])
        if found is not None and scope["method"] == "POST" and not self._options.cors_origins:
            scope["path_params"] = {key: text for key, text in found.groupdict().items() if text}
            await self._infer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _routes(self) -> list[Route]:
        """The first that matches counts: inference before all else."""
        routes = []
        for path in (_MODEL, _VERSION):
            routes += [
                self._post(f"{path}/infer", inference.infer_model, "ModelInfer"),
                self._post(f"{path}/generate", generate, "ModelStreamInfer"),
                self._post(f"{path}/generate_stream", generate_stream, "ModelStreamInfer"),
            ]
        routes += self._control_routes() + self._memory_routes() + self._cloud_routes()
        if self._options.has_docs:
            routes += docs.routes()
        return routes

    def _control_routes(self) -> list[Route]:
        routes = [
            self._get("/v2/health/live", _live),
            self._get("/v2/health/ready", _ready),
            self._get("/v2", control.server_metadata),
            self._get("/v2/models/stats", control.statistics),
            self._both("/v2/trace/setting", control.trace_settings, "TraceSetting"),
            self._both(f"{_MODEL}/trace/setting", control.trace_settings, "TraceSetting"),
            self._both("/v2/logging", control.log_settings, "LogSettings"),
        ]
        for path in (_MODEL, _VERSION):
            routes += [
                self._get(path, control.model_metadata),
                self._get(f"{path}/ready", control.model_ready),
                self._get(f"{path}/config", control.model_config),
                self._get(f"{path}/stats", control.statistics),
            ]
        for path in ("/v2/repository", "/v2/repository/{repository}"):
            model = f"{path}/models/{{model}}"
            routes += [
                self._post(f"{path}/index", control.index, "RepositoryIndex"),
                self._post(f"{model}/load", control.load, "RepositoryModelLoad"),
                self._post(f"{model}/unload", control.unload, "RepositoryModelUnload"),
            ]
        return routes

    def _memory_routes(self) -> list[Route]:
        routes = []
        for kind, rpc in control.MEMORY_KINDS.items():
            path = f"/v2/{kind}sharedmemory"
            region = f"{path}/region/{{region}}"
            details = {"kind": kind}
            register, unregister = f"{rpc}Register", f"{rpc}Unregister"
            routes += [
                self._get(f"{path}/status", control.memory_status, **details),
                self._get(f"{region}/status", control.memory_status, **details),
                self._post(f"{region}/register", control.memory_register, register, **details),
                self._post(f"{path}/unregister", control.memory_unregister, unregister, **details),
                self._post(
                    f"{region}/unregister", control.memory_unregister, unregister, **details
                ),
            ]
        return routes

    def _cloud_routes(self) -> list[Route]:
        clouds = self._options.clouds
        infer = inference.infer_default
        routes = [self._get("/ping", _ready), self._post("/invocations", infer, "ModelInfer")]
        if clouds.vertex_health:
            routes.append(self._get(clouds.vertex_health, _ready))
        if clouds.vertex_predict:
            routes.append(self._post(clouds.vertex_predict, infer, "ModelInfer"))
        return routes

    def _get(self, path: str, handler: Handler, **details: str) -> Route:
        return Route(path, self._endpoint(handler, "", path, details), methods=["GET"])

    def _post(self, path: str, handler: Handler, rpc: str, **details: str) -> Route:
        return Route(path, self._endpoint(handler, rpc, path, details), methods=["POST"])

    def _both(self, path: str, handler: Handler, rpc: str) -> Route:
        return Route(path, self._endpoint(handler, rpc, path), methods=["GET", "POST"])

    def _endpoint(
        self, handler: Handler, rpc: str, route: str, details: dict[str, str] | None = None
    ) -> Any:
        return _Endpoint(self._make_exchange, handler, rpc, {ROUTE: route}, details or {})

    def _make_exchange(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        return Exchange(
            scope,
            receive,
            send,
            self._upstream,
            self._options,
            self._budget.lease(),
            self._metadata,
        )


class _Endpoint:
    """A handler as ASGI: one answer to each request, whatever happens.

    A client that leaves cancels its task (`protocol.CANCEL`), which is no failure.
    """

    def __init__(
        self,
        make: Callable[[Scope, Receive, Send], Exchange],
        handler: Handler,
        rpc: str,
        marks: dict[str, str],
        details: dict[str, str],
    ) -> None:
        """Notes how it answers.

        Args:
            make: an exchange for a request.
            handler: of it.
            rpc: that the caller must be allowed before a body is read; "" = there is no body.
            marks: what the scope is to say for who watches.
            details: parameters beyond those of the path.
        """
        self._marks = marks
        self._make = make
        self._handler = handler
        self._rpc = rpc
        self._details = details

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(self._marks)
        scope["path_params"] |= self._details
        exchange = self._make(scope, receive, send)
        on_task = scope.get("extensions", {}).get(CANCEL)
        if on_task is not None:
            on_task(asyncio.current_task())
        try:
            failure = await self._handle(exchange, scope["path"])
            if failure is not None:
                await _show(exchange, failure)
        except asyncio.CancelledError:
            return
        finally:
            exchange.close()

    async def _handle(self, exchange: Exchange, path: str) -> HttpError | None:
        """The failure, without the frames where it arose: they hold what the client sent."""
        try:
            exchange.check_origin()
            if self._rpc:
                await exchange.upstream.authorize(exchange.call(self._rpc))
            await self._handler(exchange)
        except HttpError as error:
            return HttpError(error.status, error.message, error.headers)
        except UpstreamError as error:
            return as_http_error(error)
        except ClientGoneError:
            return None
        except asyncio.CancelledError:  # nobody is told but a client that is still there
            return None if exchange.has_begun else _stopping()
        except Exception as error:
            return _incident(error, path)
        return None


async def _show(exchange: Exchange, error: HttpError) -> None:
    if exchange.has_begun:  # its end would look like success: break it off
        raise ConnectionError(f"the answer broke off: {error.message}")
    body = jsons.dumps({"error": _encodable(error.message)})
    headers = {**error.headers, "content-length": str(len(body))}
    await exchange.begin(error.status, {"content-type": "application/json", **headers})
    await exchange.send(body, is_last=True)


def _stopping() -> HttpError:
    headers = {"retry-after": "1", "connection": "close"}
    return HttpError(503, "the gateway is stopping, and did not finish in time", headers)


def _encodable(text: str) -> str:
    """Orjson takes no lone surrogates."""
    return text.encode(errors="replace").decode()


def _incident(error: Exception, path: str) -> HttpError:
    """A defect: its text goes to the log under an id, and the client is told the id."""
    incident = secrets.token_hex(4)
    _log.error("%s failed, incident %s", path[:256], incident, exc_info=error)
    return HttpError(500, f"internal error; the gateway's log has it as incident {incident}")


async def _live(exchange: Exchange) -> None:
    """GET /v2/health/live."""
    await exchange.answer_json({"live": True})


async def _ready(exchange: Exchange) -> None:
    """GET /v2/health/ready, /ping and Vertex AI's route: 200 or 400."""
    is_ready = exchange.upstream.is_ready
    await exchange.answer_json({"ready": is_ready}, 200 if is_ready else 400)


async def _show_http_exception(_request: Request, error: Exception) -> Response:
    """What no route wants."""
    assert isinstance(error, HTTPException)
    text = {404: "Not Found", 405: "Method Not Allowed"}.get(error.status_code, error.detail)
    body = jsons.dumps({"error": text})
    return Response(body, error.status_code, error.headers, "application/json")


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "x-api-key", "content-type", INFERENCE_HEADER],
            expose_headers=[INFERENCE_HEADER, "retry-after"],
        )
    ]
