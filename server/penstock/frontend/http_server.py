"""uvicorn inside our event loop: no signals of its own, no access log, no polling, no idlers."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock.frontend.addresses import bind, host_port
from penstock.frontend.http import Application
from penstock.frontend.https import HttpTls
from penstock.frontend.tls_listener import Handshakes, TlsListener

__all__ = ["HttpServer"]

OnRefused = Callable[[int, tuple[str, int] | None, int, float], None]
"""Told of an answer that no application gave: status, client, bytes of its body, s since its
connection was made."""

_MAX_CONNECTIONS = 512
_STOP_TIMEOUT_S = 2
_REQUEST_TIMEOUT_S = 10.0
"""From a connection, or the reply before, to the next reply; all replies are immediate."""


class _Impatient(H11Protocol):
    """Drops a connection that brings no request in time: idle ones would take the probes' room.

    `on_refused` is of the class that `_make_impatient` makes.
    """

    on_refused: OnRefused = staticmethod(lambda *_refused: None)
    _timer: asyncio.TimerHandle | None = None
    _made_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._made_s = self.loop.time()
        self._wait()
        if len(self.connections) > _MAX_CONNECTIONS:
            self._refuse(503, "Exceeded concurrency limit.")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, unless a response is due or begun: two cannot go out at once."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(400, msg)
            return
        if is_answering:
            self.cycle.disconnected = True  # the application may go on; nobody reads it
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def _refuse(self, status: int, text: str) -> None:
        body = text.encode()
        self.on_refused(status, self.client, len(body), self.loop.time() - self._made_s)
        lines = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(body)}",
            "connection: close",
        )
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(_REQUEST_TIMEOUT_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _make_impatient(on_refused: OnRefused | None) -> type[asyncio.Protocol]:
    if on_refused is None:
        return _Impatient
    return type("_Told", (_Impatient,), {"on_refused": staticmethod(on_refused)})


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers and with an event in place of its tick."""

    def __init__(
        self, config: uvicorn.Config, tls: ssl.SSLContext | None, max_connections: int
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._handshakes = Handshakes(self._has_room_beside)
        self._max_connections = max_connections
        self.is_serving = asyncio.Event()
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
            return
        listeners = [
            TlsListener(each, self._tls, self._connection, self._handshakes)
            for each in sockets or ()
        ]
        for each in listeners:
            each.start(self.config.backlog)
        self.servers = cast(list[asyncio.base_events.Server], listeners)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in self.servers:
            each.close()
        await self._handshakes.end()
        await super().shutdown(sockets)

    def _has_room_beside(self, handshakes: int) -> bool:
        return handshakes + len(self.server_state.connections) < self._max_connections

    def _connection(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made

    async def main_loop(self) -> None:
        self.is_serving.set()
        await self.stopping.wait()


class HttpServer:
    """One ASGI application on one address.

    Threading: confined to the event loop.
    Ownership: its sockets and its task.
    Lifecycle: bind -> start -> share?, withdraw?, turn_away? -> stop; stop alone is fine.
    """

    def __init__(
        self,
        application: Application,
        host: str,
        port: int,
        purpose: str,
        *,
        protocol: type[asyncio.Protocol] | None = None,
        tls: HttpTls | None = None,
        max_connections: int = _MAX_CONNECTIONS,
        on_refused: OnRefused | None = None,
    ) -> None:
        """Takes no port yet.

        Args:
            application: answers requests.
            host: to listen on.
            port: 0 = any free one.
            purpose: of the port, for messages.
            protocol: of uvicorn, with bounds of its own; None = for small and quick replies.
            tls: None = plain HTTP.
            max_connections: over TLS, those that shake hands included; one more is closed. Without
                it `protocol` has its own bound.
            on_refused: told of what is answered before the application, but by `protocol`.
        """
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._application = application
        self._protocol = protocol or _make_impatient(on_refused)
        self._max_connections = max_connections
        self._host = host
        self._port = port
        self._purpose = purpose
        self._sockets: list[socket.socket] = []
        self._is_shared = False
        self._task: asyncio.Task[None] | None = None
        self._server: _Embedded | None = None

    def bind(self, given: Sequence[socket.socket] = ()) -> None:
        """Takes the port; StartupError when that fails, or when certificates will not do.

        Args:
            given: sockets to take instead, which listen already and which others may have, too.
        """
        if self._tls is not None:
            self._context = self._tls.context()
        self._sockets = list(given) or bind(self._host, self._port, self._purpose)
        self._is_shared = bool(given)
        self._port = self._sockets[0].getsockname()[1]

    @property
    def port(self) -> int:
        """The port it has."""
        return self._port

    @property
    def address(self) -> str:
        """Where it listens."""
        return host_port(self._host, self._port)

    async def start(self) -> None:
        """Begins to serve."""
        config = uvicorn.Config(
            self._application,
            http=self._protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
        )
        self._server = _Embedded(config, self._context, self._max_connections)
        self._task = asyncio.create_task(self._server.serve(self._sockets))
        serving = asyncio.create_task(self._server.is_serving.wait())
        await asyncio.wait({self._task, serving}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if self._task.done():
            await self._task

    def withdraw(self) -> None:
        """From now on each answer is its connection's last: clients go elsewhere."""
        if self._server is not None:
            self._server.server_state.default_headers.append((b"connection", b"close"))

    @property
    def listeners(self) -> Sequence[socket.socket]:
        """The listening sockets."""
        return self._sockets

    def share(self) -> None:
        """Another process takes connections from the same sockets."""
        self._is_shared = True

    def turn_away(self) -> None:
        """Leaves new connections to the others where there are any; else they are answered here.

        There, a connection that has had an answer is closed, after the one that is under way if
        any: its client connects anew, to the others. One that has had none may have a request on
        its way, which is answered here.
        """
        if not self._is_shared or self._server is None:
            return
        for each in self._server.servers:
            each.close()
        for connection in list(self._server.server_state.connections):
            if getattr(connection, "cycle", None) is not None:
                with contextlib.suppress(h11.LocalProtocolError):  # it is in error, and closing
                    connection.shutdown()

    async def drain(self, timeout_s: float) -> None:
        """Returns once the requests under way are answered, or after the time."""
        tasks = set() if self._server is None else set(self._server.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Closes the port, then ends what is still under way after the time."""
        if self._server is not None and self._task is not None:
            self._server.config.timeout_graceful_shutdown = timeout_s  # type: ignore[assignment]
            self._server.stopping.set()
            await self._task
            if cancelled := set(self._server.server_state.tasks):
                await asyncio.wait(cancelled, timeout=_STOP_TIMEOUT_S)  # they answer 503
        for bound in self._sockets:
            bound.close()
