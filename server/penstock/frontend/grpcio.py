"""The grpcio transport: a grpc.aio server with our limits."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from penstock.config import ServerConfig
from penstock.errors import StartupError
from penstock.frontend.access_log import AccessInterceptor
from penstock.frontend.addresses import check_free, host_port
from penstock.frontend.tls import server_credentials
from penstock.frontend.unix_address import UnixAddress
from penstock.observe.access import AccessLog

__all__ = ["GrpcioTransport", "is_news"]

_IDENTITY = 1 << grpc.Compression.NoCompression
_COMPRESSION_LEVELS = {"none": 0, "low": 1, "medium": 2, "high": 3}  # gRPC's

_log = logging.getLogger(__name__)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of gRPC's own log says more than that a client has left.

    A reply or a status that meets a stream just closed fails in gRPC's core, which logs it with a
    traceback where the news of the closing has not reached it yet.
    """
    error = record.exc_info[1] if record.exc_info else None
    has_left = isinstance(error, grpc.aio.InternalError) and "execute_batch" in str(error)
    if has_left:
        _log.debug("a client left before it was answered: %s", record.getMessage())
    return not has_left


class GrpcioTransport:
    """A grpc.aio server.

    Threading: confined to the event loop.
    Lifecycle: constructed -> services are registered on `server` -> bind -> start -> stop.
    """

    def __init__(self, config: ServerConfig, access_log: AccessLog | None = None) -> None:
        """`access_log`: has a line of each call; None = nobody asks."""
        logging.getLogger("grpc._cython.cygrpc").addFilter(is_news)
        self._config = config
        self._host = config.grpc_address or config.host
        self._unix = UnixAddress.of(self._host)
        self.server: Any = grpc.aio.server(
            options=_options(config),
            interceptors=() if access_log is None else (AccessInterceptor(access_log),),
        )
        self.port = 0

    def bind(self, given: Sequence[socket.socket] = ()) -> None:
        """Takes the port; StartupError when that fails, or when certificates will not do."""
        if given:
            raise StartupError(
                "--transport grpcio takes over no listening socket: expected --transport native, or"
                " no socket for grpc in LISTEN_FDNAMES"
            )
        if self._unix is None:
            # gRPC logs the reason of a failure and raises without it: ask the system first.
            check_free(self._host, self._config.grpc_port, "gRPC")
            self.port = self._bind(host_port(self._host, self._config.grpc_port))
            return
        if self._config.connection_requests_per_second:
            raise StartupError(
                "--connection-requests-per-second: --transport grpcio cannot tell the connections "
                "of a Unix-domain socket from each other; expected --transport native, or an "
                "address with a port"
            )
        with self._unix.claimed("gRPC"):
            self._unix.bind("gRPC").close()  # for the reason, too; gRPC replaces the file
            self._bind(f"unix:{self._unix.path}")
            self._unix.adopt()

    def _bind(self, address: str) -> int:
        credentials = server_credentials(self._config) if self._config.grpc_use_ssl else None
        try:
            port: int = (
                self.server.add_insecure_port(address)
                if credentials is None
                else self.server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {address} for gRPC: {error}") from error
        if port == 0:
            raise StartupError(f"cannot listen on {address} for gRPC")
        return port

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._host if self._unix is not None else host_port(self._host, self.port)

    async def start(self) -> None:
        """Begins to serve."""
        await self.server.start()

    def set_loaded(self) -> None:
        """Nothing: the handlers ask `Readiness`."""

    def close_streams(self) -> None:
        """Nothing: the handlers hear of it from `Readiness`."""

    def stats(self) -> Mapping[str, int]:
        """Nothing: gRPC does not tell."""
        return {}

    def turn_away(self) -> None:
        """Nothing: gRPC says GOAWAY when it is stopped."""

    @property
    def listeners(self) -> Sequence[socket.socket]:
        """None: gRPC keeps its sockets to itself."""
        return ()

    def share(self) -> None:
        """Nothing: nobody else has them."""

    async def stop(self, grace_s: float) -> None:
        """Sends GOAWAY, lets RPCs in flight finish for `grace_s`, then cancels the rest."""
        await self.server.stop(grace_s)
        if self._unix is not None:
            self._unix.remove()


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.max_concurrent_streams", config.max_concurrent_streams),
        # With it gRPC refuses calls of honest clients: those that begin before it has let go of
        # the ones just answered. The limit above holds without it.
        ("grpc.http.overload_protection", 0),
        ("grpc.keepalive_time_ms", config.grpc_keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", config.grpc_keepalive_timeout_ms),
        # Else no ping is given up before a minute has passed.
        ("grpc.http2.ping_timeout_ms", config.grpc_keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.absolute_max_metadata_size", config.max_header_bytes),
        ("grpc.http2.min_ping_interval_without_data_ms", config.grpc_min_ping_interval_ms),
    ]
    if not config.grpc_compression:
        options.append(("grpc.compression_enabled_algorithms_bitset", _IDENTITY))
    level = _COMPRESSION_LEVELS[config.grpc_infer_response_compression_level]
    if level:  # gRPC chooses the algorithm, among those that the client takes
        options.append(("grpc.default_compression_level", level))
    if config.max_connections:
        options.append(("grpc.max_allowed_incoming_connections", config.max_connections))
    if config.grpc_max_connection_age_ms:
        options.append(("grpc.max_connection_age_ms", config.grpc_max_connection_age_ms))
    if config.grpc_max_connection_age_grace_ms:
        grace_ms = config.grpc_max_connection_age_grace_ms
        options.append(("grpc.max_connection_age_grace_ms", grace_ms))
    if config.grpc_max_connection_idle_ms:
        options.append(("grpc.max_connection_idle_ms", config.grpc_max_connection_idle_ms))
    return options
