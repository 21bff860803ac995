"""The small HTTP side, as ASGI applications: health on one port, metrics on another."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from penstock.frontend.readiness import Readiness

__all__ = [
    "ROUTE",
    "Application",
    "Receive",
    "Reply",
    "Routes",
    "Scope",
    "Send",
    "health_routes",
    "metrics_routes",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Reply = tuple[int, str, bytes]
"""Status, content type, body."""

ROUTE = "penstock.route"
"""Key of the ASGI scope: the pattern of the route that answers, for who counts requests."""

_JSON = "application/json"
_METHODS = ("GET", "HEAD")


class Routes:
    """An ASGI application of fixed paths that are read with GET.

    Anything else is 404 or 405 with `{"error": ...}`. Query parameters are ignored; request bodies
    are not read.
    """

    def __init__(self, routes: Mapping[str, Callable[[], Reply]]) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise ValueError(f"unexpected ASGI scope {scope['type']}")
        headers = []
        route = self._routes.get(scope["path"])
        if route is not None:
            scope[ROUTE] = scope["path"]
        if route is None:
            status, kind, body = _error(404, "Not Found")
        elif scope["method"] not in _METHODS:
            status, kind, body = _error(405, "Method Not Allowed")
            headers.append((b"allow", ", ".join(_METHODS).encode()))
        else:
            status, kind, body = route()
        headers.append((b"content-type", kind.encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def health_routes(readiness: Readiness) -> Routes:
    """Live and ready, as the Open Inference Protocol has them."""

    def live() -> Reply:
        return _json(200, {"live": True})

    def ready() -> Reply:
        is_ready = readiness.is_ready
        return _json(200 if is_ready else 400, {"ready": is_ready})

    return Routes({"/v2/health/live": live, "/v2/health/ready": ready})


def metrics_routes(render: Callable[[], tuple[str, bytes]]) -> Routes:
    """Prometheus metrics.

    Args:
        render: content type and text of all metrics.
    """

    def metrics() -> Reply:
        kind, text = render()
        return 200, kind, text

    return Routes({"/metrics": metrics})


def _json(status: int, value: object) -> Reply:
    return status, _JSON, json.dumps(value).encode()


def _error(status: int, message: str) -> Reply:
    return _json(status, {"error": message})
