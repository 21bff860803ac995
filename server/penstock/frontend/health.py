"""grpc.health.v1.Health: SERVING while the server is ready. Check and Watch."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock.codec import SERVICE_NAME
from penstock.frontend.gate import Gate
from penstock.frontend.readiness import Readiness

__all__ = ["HealthServicer", "register_health"]

_SERVICES = ("", SERVICE_NAME)


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers from `Readiness`. The names are "" and the inference service's.

    The asyncio servicer of grpcio-health-checking is not used: when one watcher of a name leaves it
    forgets the others.

    Threading: confined to the event loop.
    """

    def __init__(self, readiness: Readiness, gate: Gate) -> None:
        self._readiness = readiness
        self._gate = gate

    async def Check(self, request: Any, context: Any) -> Any:
        """The status now; NOT_FOUND for another name."""
        await self._gate.let_in("health", request.ByteSize(), context, "Check")
        if request.service not in _SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service '{request.service}'")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> None:
        """The status now and at every change, until the server closes."""
        await self._gate.let_in("health", request.ByteSize(), context, "Watch")
        last = None
        while True:
            change = self._readiness.next_change()
            status = self._status(request.service)
            if status != last:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                last = status
            if self._readiness.is_closing:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            await change.wait()

    def _status(self, service: str) -> Any:
        kinds = health_pb2.HealthCheckResponse
        if service not in _SERVICES:
            return kinds.SERVICE_UNKNOWN
        return kinds.SERVING if self._readiness.is_ready else kinds.NOT_SERVING


def register_health(server: Any, readiness: Readiness, gate: Gate) -> None:
    """Adds the service to a server of either transport."""
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(readiness, gate), server)
