"""Lines of the access log for calls that grpcio carries: an interceptor around every handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction
from typing import TYPE_CHECKING, Any

import grpc

from penstock.codec import call_names
from penstock.observe.access import Access, AccessLog, Stopwatch

__all__ = ["AccessInterceptor"]


if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor  # takes no parameters where it runs


class AccessInterceptor(_Interceptor):
    """Has a line written of each call, when it is over.

    Threading: confined to the event loop.
    Ownership: borrows the log.
    """

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler, watched; what no handler answers is a line, too."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            self._log.write(Access(method, "UNIMPLEMENTED"))
            return None
        watch = _Watch(self._log, method, handler)
        kind = "_".join(
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behaviour: Any = watch.stream if handler.response_streaming else watch.unary
        if handler.response_streaming and isasyncgenfunction(getattr(handler, kind)):
            behaviour = watch.generate
        # One answer is counted before it goes out, those of a stream as they do.
        write = watch.sent if handler.response_streaming else handler.response_serializer
        return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, watch.received, write)


class _Watch:
    """One call: what came, what went, how it ended."""

    def __init__(self, log: AccessLog, method: str, handler: Any) -> None:
        self._log = log
        self._handler = handler
        self._access = Access(method)
        self._stopwatch = Stopwatch()
        side = "stream" if handler.request_streaming else "unary"
        reply = "stream" if handler.response_streaming else "unary"
        self._behaviour = getattr(handler, f"{side}_{reply}")

    def received(self, message: bytes) -> Any:
        """A request's message: counted, then as the handler has it."""
        access = self._access
        access.received_bytes += len(message)
        if not access.model:
            names = call_names(access.method, message)
            access.model, access.version = names.model, names.version
            access.request_id = names.request_id or access.request_id
        read = self._handler.request_deserializer
        return message if read is None else read(message)

    def sent(self, message: Any) -> bytes:
        """A response's message."""
        write = self._handler.response_serializer
        data: bytes = message if write is None else write(message)
        self._access.sent_bytes += len(data)
        return data

    async def unary(self, request: Any, context: Any) -> Any:
        """A handler that returns its answer."""
        try:
            answer = await self._behaviour(request, context)
        except BaseException as error:
            self._end(context, error)
            raise
        self._end(context, None, answer)
        return answer

    async def stream(self, request: Any, context: Any) -> None:
        """A handler that writes its answers."""
        try:
            await self._behaviour(request, context)
        except BaseException as error:
            self._end(context, error)
            raise
        self._end(context, None)

    async def generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """A handler that yields its answers."""
        try:
            async for answer in self._behaviour(request, context):
                yield answer
        except BaseException as error:
            self._end(context, error)
            raise
        self._end(context, None)

    def _end(self, context: Any, error: BaseException | None, answer: Any = None) -> None:
        access = self._access
        if answer is not None:  # it is not serialised yet
            write = self._handler.response_serializer
            access.sent_bytes += len(answer if write is None else write(answer))
        access.status = _status(context, error)
        access.duration_ms = self._stopwatch.milliseconds()
        access.peer = context.peer()
        if not access.request_id:
            access.request_id = _request_id(context)
        self._log.write(access)


def _request_id(context: Any) -> str:
    pairs = context.invocation_metadata() or ()
    return next((str(value) for key, value in pairs if key == "x-request-id"), "")


def _status(context: Any, error: BaseException | None) -> str:
    """What its client is told, as gRPC names it."""
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    if code:
        return next((each.name for each in grpc.StatusCode if each.value[0] == code), "UNKNOWN")
    if error is None:  # a stream may end well before it hears that its client has left
        return "CANCELLED" if context.cancelled() else "OK"
    return "UNKNOWN" if isinstance(error, Exception) else "CANCELLED"
