"""The server's own handlers as the gateway's upstream: no socket, the same admission.

Each call runs the very handler that gRPC would run, with a context that has the HTTP client's
credentials and address: what is asked of callers on gRPC is asked of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn

from penstock.frontend.gate import RPC_GROUPS, Gate
from penstock.frontend.readiness import Readiness
from penstock.frontend.status import abort
from penstock.frontend.stream import HALF_CLOSE
from penstock_gateway.upstream import Call, UpstreamError

__all__ = ["InProcessUpstream"]

_ROOM = 2
"""Messages of a stream that may wait for the client; its model is held back by the next."""


class InProcessUpstream:
    """See the module.

    Threading: confined to the event loop.
    Ownership: borrows the handlers, the readiness and the gate; the tasks of streams.
    """

    def __init__(self, handlers: Mapping[str, Any], readiness: Readiness, gate: Gate) -> None:
        """`handlers`: grpc.RpcMethodHandler by RPC, from bytes to bytes."""
        self._handlers = handlers
        self._gate = gate
        self._readiness = readiness

    @property
    def is_ready(self) -> bool:
        """As every other probe is told."""
        return self._readiness.is_ready

    async def authorize(self, call: Call) -> None:
        """Asks the core whether the caller may call the RPC at all."""
        if not self._gate.is_active:
            return
        try:
            await self._gate.authorize(RPC_GROUPS[call.rpc], _Context(call))
        except Exception as error:
            await abort(_Context(call), error, call.rpc)

    async def unary(self, call: Call, request: bytes) -> bytes:
        """One message for one; raises UpstreamError."""
        answer: bytes = await self._handlers[call.rpc].unary_unary(request, _Context(call))
        return answer

    async def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """The answers to one message; closing the generator cancels the call."""
        context = _StreamContext(call, request)
        running = asyncio.create_task(self._run(call.rpc, context))
        try:
            while (answer := await context.written.get()) is not None:
                yield answer
                context.room.release()
            await running
        finally:
            running.cancel()
            await asyncio.wait({running})

    async def _run(self, rpc: str, context: _StreamContext) -> None:
        try:
            await self._handlers[rpc].stream_stream(None, context)
        finally:
            context.written.put_nowait(None)


class _Context:
    """What of grpc.aio.ServicerContext our handlers use."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._call.metadata

    def peer(self) -> str:
        return self._call.peer

    def time_remaining(self) -> None:
        """HTTP has no deadline; a client that leaves cancels its call."""
        return None

    def disable_next_message_compression(self) -> None:
        """Compression is HTTP's own."""

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Where the gateway wants it."""
        if self._call.trailing is not None:
            self._call.trailing.update(metadata)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with a status."""
        trailing = {key: value for key, value in trailing_metadata or ()}
        raise UpstreamError(code.value[0], details, trailing)


class _StreamContext(_Context):
    """A stream of one request."""

    def __init__(self, call: Call, request: bytes) -> None:
        super().__init__(call)
        self.written: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.room = asyncio.Semaphore(_ROOM)
        self._unread: bytes | None = request

    async def read(self) -> Any:
        """The request, then the half-close."""
        if self._unread is None:
            return HALF_CLOSE
        request, self._unread = self._unread, None
        return request

    async def write(self, message: bytes) -> None:
        """Returns when the client has room for it."""
        await self.room.acquire()
        self.written.put_nowait(message)
