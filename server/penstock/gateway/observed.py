"""What is counted and logged of HTTP requests, around whatever application answers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping
from typing import Any

from penstock.frontend.http import ROUTE, Application, Receive, Scope, Send
from penstock.observe.access import Access, AccessLog, Stopwatch
from penstock.observe.exposition import Family
from penstock_gateway.protocol import ABANDONED, ABOUT, REFUSED, OnRefused
from penstock_gateway.upstream import peer_of

__all__ = ["HttpCounters", "Observed", "refusals"]

_UNREAD = "unread"
_OTHER = "other"
_LEFT = "left"
_FAILED = "500"


class HttpCounters:
    """Requests by route and status, and those under way.

    Threading: confined to the event loop.
    """

    def __init__(self) -> None:
        self.inflight = 0
        self._requests: Counter[tuple[str, str]] = Counter()

    def count(self, route: str, code: str) -> None:
        """A request has ended."""
        self._requests[route, code] += 1

    def families(self) -> Iterator[Family]:
        """As `/metrics` shows them."""
        text = "HTTP requests answered, by route and status"
        requests = Family("penstock_http_requests_total", text, "counter")
        for (route, code), count in sorted(self._requests.items()):
            requests.add({"route": route, "code": code}, count)
        yield requests
        inflight = Family("penstock_http_inflight_requests", "HTTP requests under way", "gauge")
        inflight.add({}, self.inflight)
        yield inflight


def refusals(counters: HttpCounters, log: AccessLog | None = None) -> OnRefused:
    """Counts, and where asked logs, what is answered without a request that would be `Observed`."""

    def refused(
        status: int, client: tuple[str, int] | None, sent_bytes: int, seconds: float
    ) -> None:
        counters.count(_UNREAD, str(status))
        if log is not None:
            access = Access(_UNREAD, str(status), sent_bytes=sent_bytes, peer=peer_of(client))
            access.duration_ms = round(seconds * 1e3, 3)
            log.write(access)

    return refused


class Observed:
    """An ASGI application that counts, and where asked logs, what another one answers.

    Threading: confined to the event loop.
    Ownership: borrows the application, the counters and the log.
    """

    def __init__(
        self, application: Application, counters: HttpCounters, log: AccessLog | None = None
    ) -> None:
        self._application = application
        self._counters = counters
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        stopwatch = Stopwatch()
        self._counters.inflight += 1
        try:
            await self._application(scope, exchange.receive, exchange.send)
        except Exception:
            exchange.note_failure()
            raise
        finally:
            self._counters.inflight -= 1
            exchange.note_refusal()
            self._counters.count(scope.get(ROUTE, _OTHER), exchange.status)
            if self._log is not None:
                self._log.write(_access(scope, exchange, stopwatch))


class _Exchange:
    """The way to and from the client of one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.status = _LEFT
        self.received_bytes = 0
        self.sent_bytes = 0

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self.received_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if ABANDONED not in self._scope:
            if message["type"] == "http.response.start":
                self.status = str(message["status"])
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)

    def note_failure(self) -> None:
        """The application raised: uvicorn answers in its place, where it can."""
        if self.status == _LEFT and ABANDONED not in self._scope:
            self.status = _FAILED

    def note_refusal(self) -> None:
        """The answer may have gone past the application, which was told that its client left."""
        if REFUSED in self._scope:
            status, self.sent_bytes = self._scope[REFUSED]
            self.status = str(status)


def _access(scope: Scope, exchange: _Exchange, stopwatch: Stopwatch) -> Access:
    params = scope.get("path_params") or {}
    model, version, request_id = scope.get(ABOUT) or ("", "", "")
    return Access(
        method=f"{scope['method']} {scope['path']}",
        status="CANCELLED" if exchange.status == _LEFT else exchange.status,
        model=model or params.get("model", ""),
        version=version or params.get("version", ""),
        request_id=request_id or _request_id(scope),
        duration_ms=stopwatch.milliseconds(),
        received_bytes=exchange.received_bytes,
        sent_bytes=exchange.sent_bytes,
        peer=peer_of(scope.get("client")),
    )


def _request_id(scope: Scope) -> str:
    found = (value for name, value in scope["headers"] if name == b"x-request-id")
    return bytes(next(found, b"")).decode("latin-1")
