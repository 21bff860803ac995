"""The native transport: gRPC over HTTP/2 on the core's threads, with our limits."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from penstock.config import ServerConfig
from penstock.errors import CoreError, StartupError
from penstock.frontend.addresses import bind, host_port
from penstock.frontend.native_server import EventSource, NativeServer, Recogniser
from penstock.frontend.tls import check_certificates
from penstock.frontend.unix_address import UnixAddress

__all__ = ["CoreTransport", "NativeTransport", "is_native_chosen"]

_COMPRESSION_LEVELS = {"none": 0, "low": 1, "medium": 2, "high": 3}
_CANCEL_S = 1.0
"""For handlers that were cancelled, and then for their statuses to go out."""
_JOIN_S = 1.0
"""For the core's threads, once nothing may go on."""


_log = logging.getLogger(__name__)


def is_native_chosen(choice: str, *, is_built: bool) -> bool:
    """Whether --transport means the native one; what it falls back to is told.

    Raises:
        StartupError: it is asked for and was not built.
    """
    if choice == "native" and not is_built:
        raise StartupError(
            "--transport native: the core of this installation was built without it; expected a"
            " build that finds nghttp2, OpenSSL and zlib, or --transport grpcio"
        )
    if choice == "auto" and not is_built:
        _log.info("gRPC is carried by grpcio: the core was built without the native transport")
    return choice != "grpcio" and is_built


class CoreTransport(EventSource, Protocol):
    """What of `penstock.core.Transport` the face needs."""

    def use_tls(
        self, *, certificate: str, key: str, client_roots: str, require_client_certificate: bool
    ) -> None:
        """Raises CoreError where the files will not do."""

    def listen(self, fd: int) -> None:
        """Takes connections from a listening socket; keeps a duplicate of it."""

    def share_listeners(self) -> None:
        """Another process has the listening sockets, too: `drain` does not shut them down."""

    def start(self) -> None:
        """Begins to serve."""

    def set_loaded(self) -> None:
        """A model that is unknown from now on is NOT_FOUND."""

    def close_streams(self) -> None:
        """Streams of inference answer what they have read and end."""

    def drain(self) -> None:
        """Closes the listeners and sends GOAWAY."""

    def stats(self) -> Mapping[str, int]:
        """Counters and gauges by name."""

    def stop(self, timeout_s: float) -> bool:
        """Blocking. Ends what is left; whether every thread has ended."""


class NativeTransport:
    """Wires a core transport, its address, its certificates and the server of the Python lane.

    Threading: confined to the event loop.
    Ownership: owns the core transport, its listening sockets, and the file of a Unix-domain socket
    that nobody else has.
    Lifecycle: constructed -> services are registered on `server` -> bind -> start -> set_loaded ->
    share? -> turn_away, close_streams -> stop. stop alone is fine at any time.
    """

    def __init__(
        self,
        config: ServerConfig,
        make: Callable[..., CoreTransport],
        gate: Recogniser,
    ) -> None:
        self._config = config
        self._host = config.grpc_address or config.host
        self._unix = UnixAddress.of(self._host)
        self._core = make(**_options(config))
        self.server = NativeServer(gate, config.max_message_bytes)
        self.port = 0
        self._sockets: list[socket.socket] = []
        self._is_listening = False
        self._is_shared = False

    def bind(self, given: Sequence[socket.socket] = ()) -> None:
        """Takes the port; StartupError when that fails, or when certificates will not do.

        Args:
            given: sockets to take instead, which listen already and which others may have, too.
        """
        self._sockets = list(given) or self._bound()
        if self._unix is None:
            self.port = self._sockets[0].getsockname()[1]
        with ExitStack() as bound:
            for each in self._sockets:
                bound.enter_context(each)
            if self._config.grpc_use_ssl:
                self._use_tls()
            for each in self._sockets:
                self._core.listen(each.fileno())
            bound.pop_all()
        self._is_listening = True
        if given:
            self.share()

    @property
    def listeners(self) -> Sequence[socket.socket]:
        """The listening sockets."""
        return self._sockets

    def share(self) -> None:
        """Another process serves with the same sockets: from now on they are left as they are."""
        self._is_shared = True
        self._core.share_listeners()

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._host if self._unix is not None else host_port(self._host, self.port)

    async def start(self) -> None:
        """Begins to serve."""
        self.server.start(self._core)
        self._core.start()

    def set_loaded(self) -> None:
        """The models of the start are loaded: what is unknown now is unknown for good."""
        self._core.set_loaded()

    def close_streams(self) -> None:
        """Streams of inference end once they have answered what they read."""
        self._core.close_streams()

    def stats(self) -> Mapping[str, int]:
        """Counters and gauges by name."""
        return self._core.stats()

    def turn_away(self) -> None:
        """Takes no connections any more, and tells clients to make new calls elsewhere: GOAWAY."""
        if self._unix is not None and not self._is_shared:
            self._unix.remove(is_listening=self._is_listening)
        self._core.drain()

    async def stop(self, grace_s: float) -> None:
        """Sends GOAWAY, lets RPCs in flight finish for `grace_s`, then cancels the rest.

        Takes little longer than the grace: what does not end then is left, and logged.
        """
        self.turn_away()
        for each in self._sockets:
            each.close()
        await self._until_closed(grace_s)
        await self.server.cancel_all(_CANCEL_S)
        await self._until_closed(_CANCEL_S)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(None, self._core.stop, _JOIN_S):
            _log.error("the native transport goes on: a thread of it has not ended")
        self.server.detach()

    async def _until_closed(self, timeout_s: float) -> None:
        """Returns when every connection has closed and every handler ended, or after the time.

        A connection that drains closes once all is written: also what a slow reader was late for.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._core.stats()["open_connections"] or self.server.tasks:
            left_s = deadline - loop.time()
            if left_s <= 0:
                return
            await self.server.next_event(left_s)

    def _bound(self) -> list[socket.socket]:
        if self._unix is None:
            return bind(self._host, self._config.grpc_port, "gRPC")
        with self._unix.claimed("gRPC"):
            return [self._unix.bind("gRPC")]

    def _use_tls(self) -> None:
        config = self._config
        check_certificates(config)
        try:
            self._core.use_tls(
                certificate=config.grpc_server_cert,
                key=config.grpc_server_key,
                client_roots=config.grpc_root_cert if config.grpc_use_ssl_mutual else "",
                require_client_certificate=config.grpc_use_ssl_mutual,
            )
        except CoreError as error:
            raise StartupError(error.message) from error


def _options(config: ServerConfig) -> dict[str, Any]:
    level = config.grpc_infer_response_compression_level
    return {
        "io_threads": config.grpc_io_threads,
        "max_message_bytes": config.max_message_bytes,
        "max_connections": config.max_connections,
        "max_concurrent_streams": config.max_concurrent_streams,
        "max_inflight_per_stream": config.max_inflight_per_stream,
        "max_header_bytes": config.max_header_bytes,
        "compression": config.grpc_compression,
        "response_compression_level": _COMPRESSION_LEVELS[level],
        "keepalive_time_ms": config.grpc_keepalive_time_ms,
        "keepalive_timeout_ms": config.grpc_keepalive_timeout_ms,
        "min_ping_interval_ms": config.grpc_min_ping_interval_ms,
        "max_connection_age_ms": config.grpc_max_connection_age_ms,
        "max_connection_age_grace_ms": config.grpc_max_connection_age_grace_ms,
        "max_connection_idle_ms": config.grpc_max_connection_idle_ms,
        "max_buffered_bytes": config.max_buffered_bytes,
        "access_log": config.access_log,
    }
