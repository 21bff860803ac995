"""externalscaler.ExternalScaler, which KEDA calls, on a grpc.aio server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock import codec
from penstock.errors import InvalidArgumentError, StartupError, UnavailableError
from penstock.frontend.addresses import check_free, host_port
from penstock.frontend.status import abort
from penstock.scaling.triggers import Advice, Trigger, read_trigger, value_of

__all__ = ["ExternalScaler", "ScalerServer"]

_MAX_MESSAGE_BYTES = 1 << 20
_MAX_RPCS = 4096


class Advisor(Protocol):
    """What of `penstock.scaling.advisor.Advisor` the service needs."""

    def advice(self, trigger: Trigger) -> list[Advice]:
        """Of the trigger's models; CoreError where it is not known."""

    def is_active(self, trigger: Trigger) -> bool:
        """Whether there should be any replica."""

    def next_round(self) -> asyncio.Event:
        """An event that the next round sets."""


class ExternalScaler:
    """The RPCs, from bytes to bytes.

    KEDA gets an error, never a zero, while nothing is known of the fleet: it keeps what there is.

    Threading: confined to the event loop.
    """

    def __init__(self, advisor: Advisor, *, repeat_s: float, clock: Callable[[], float]) -> None:
        """`repeat_s`: how often a stream says anew that its model is active."""
        self._advisor = advisor
        self._repeat_s = repeat_s
        self._clock = clock
        self._closing = asyncio.Event()

    async def is_active(self, request: bytes) -> bytes:
        """Whether there should be any replica."""
        trigger = read_trigger(codec.parse_scaled_object("IsActive", request))
        return codec.encode_is_active(self._advisor.is_active(trigger))

    async def get_metric_spec(self, request: bytes) -> bytes:
        """Does not ask whether the model is there: the HPA is made before the first replica."""
        trigger = read_trigger(codec.parse_scaled_object("GetMetricSpec", request))
        return codec.encode_metric_spec(trigger.metric_name, trigger.target)

    async def get_metrics(self, request: bytes) -> bytes:
        """The metric's value over the fleet."""
        metadata, name = codec.parse_metrics_request(request)
        trigger = read_trigger(metadata)
        if name != trigger.metric_name:
            expected = trigger.metric_name
            raise InvalidArgumentError(f"metricName: expected '{expected}', got '{name}'")
        value = value_of(trigger, self._advisor.advice(trigger))
        return codec.encode_metric_value(trigger.metric_name, value)

    async def stream_is_active(self, request: bytes, context: Any) -> None:
        """The state now, at every change, and while it is true again and again.

        On KEDA's side only true acts. A moment of which nothing is known is passed over.
        """
        trigger = read_trigger(codec.parse_scaled_object("StreamIsActive", request))
        told: bool | None = None
        told_s = self._clock()
        closing = asyncio.create_task(self._closing.wait())
        try:
            while not self._closing.is_set():
                change = asyncio.create_task(self._advisor.next_round().wait())
                is_active = self._known_state(trigger)
                is_due = bool(is_active) and self._clock() - told_s >= self._repeat_s
                if is_active is not None and (is_active != told or is_due):
                    await context.write(codec.encode_is_active(is_active))
                    told, told_s = is_active, self._clock()
                try:
                    await asyncio.wait({change, closing}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
        finally:
            closing.cancel()
        raise UnavailableError("the scaler is stopping")

    def close(self) -> None:
        """Streams end."""
        self._closing.set()

    def register(self, server: Any) -> None:
        """Adds the service to a grpc.aio server."""
        unary = {
            "IsActive": self.is_active,
            "GetMetricSpec": self.get_metric_spec,
            "GetMetrics": self.get_metrics,
        }
        handlers = {name: _unary(name, behaviour) for name, behaviour in unary.items()}
        handlers["StreamIsActive"] = _stream("StreamIsActive", self.stream_is_active)
        name = codec.SCALER_SERVICE_NAME
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    def _known_state(self, trigger: Trigger) -> bool | None:
        try:
            return self._advisor.is_active(trigger)
        except UnavailableError:
            return None


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The scaler serves, whether or not its fleet can be reached: KEDA is to hear why not."""

    async def Check(self, request: Any, context: Any) -> Any:
        if request.service not in ("", codec.SCALER_SERVICE_NAME):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service '{request.service}'")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class ScalerServer:
    """The gRPC server of `penstock scaler`.

    Threading: confined to the event loop.
    Lifecycle: bind -> start -> stop.
    """

    def __init__(self, service: ExternalScaler, host: str, port: int) -> None:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ]
        self._server: Any = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MAX_RPCS)
        self._service = service
        self._host = host
        self.port = port
        service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(_Health(), self._server)

    def bind(self, credentials: Any = None) -> None:
        """Takes the port; StartupError when that fails. `credentials`: of gRPC; None = no TLS."""
        check_free(self._host, self.port, "KEDA")
        address = host_port(self._host, self.port)
        try:
            self.port = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {address} for KEDA: {error}") from error

    @property
    def address(self) -> str:
        """Where it listens."""
        return host_port(self._host, self.port)

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Ends the streams, lets calls finish for `grace_s`."""
        self._service.close()
        await self._server.stop(grace_s)


def _unary(name: str, behaviour: Callable[[bytes], Awaitable[bytes]]) -> Any:
    async def handle(request: bytes, context: Any) -> bytes:
        try:
            return await behaviour(request)
        except Exception as error:
            await abort(context, error, name)

    return grpc.unary_unary_rpc_method_handler(handle)


def _stream(name: str, behaviour: Callable[[bytes, Any], Awaitable[None]]) -> Any:
    async def handle(request: bytes, context: Any) -> None:
        try:
            await behaviour(request, context)
        except Exception as error:
            await abort(context, error, name)

    return grpc.unary_stream_rpc_method_handler(handle)
