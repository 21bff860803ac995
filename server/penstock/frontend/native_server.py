"""The server that generated code registers services with, over the native transport.

It has the registration methods of a grpc.aio.Server, finds the handler of each call that the core
hands over, and runs it as a task. ModelInfer and ModelStreamInfer never come here, but for a token
that the core wants verified.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any, Protocol

import grpc

from penstock.core import Caller, CallEvent
from penstock.errors import Code
from penstock.frontend.native_call import CallPipe, Metadata, ServerCall
from penstock.frontend.native_context import NativeContext
from penstock.frontend.status import presentable
from penstock.frontend.stream import SHUTTING_DOWN

__all__ = ["EventSource", "NativeServer", "Recogniser"]

_VERIFIED_GROUP = "inference"

_log = logging.getLogger(__name__)


class EventSource(Protocol):
    """Where calls come from: what of `penstock.core.Transport` the server needs."""

    @property
    def event_fd(self) -> int:
        """Readable while events wait."""

    def take_events(self) -> Iterable[tuple[Any, int, Any]]:
        """(call, CallEvent, payload) of all events that wait, oldest first."""


class Recogniser(Protocol):
    """What of `penstock.frontend.gate.Gate` the server needs."""

    async def recognise(self, group: str, caller: Caller | None) -> None:
        """Has the caller's token verified where the core does not know it."""


@dataclass(frozen=True, slots=True)
class _Details:
    """What a generic handler is asked with: grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Metadata


@dataclass(slots=True)
class _Entry:
    """A call that Python answers, until it is closed."""

    pipe: CallPipe
    task: asyncio.Task[None] | None = None


class NativeServer:
    """Handlers by path, and the calls that run them.

    Threading: confined to the event loop.
    Ownership: the tasks of its calls; borrows the gate and the source of events.
    Lifecycle: services are registered -> start -> cancel_all -> detach.
    """

    def __init__(self, gate: Recogniser, max_message_bytes: int) -> None:
        self._gate = gate
        self._max_message_bytes = max_message_bytes
        self._registered: dict[str, Any] = {}
        self._generic: list[Any] = []
        self._source: EventSource | None = None
        self._is_closing = False
        self._calls: dict[ServerCall, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: asyncio.Future[None] | None = None

    # What generated code calls

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Adds handlers that are asked for each method that is not registered by name."""
        handlers = tuple(generic_rpc_handlers)
        for each in handlers:
            if getattr(each, "service", None) is None:
                raise AttributeError(
                    f"{each!r} must conform to the grpc.GenericRpcHandler interface, but has no"
                    " method 'service'"
                )
        self._generic.extend(handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """Adds the methods of a service."""
        for name, handler in method_handlers.items():
            self._registered[f"/{service_name}/{name}"] = handler

    # Calls

    def start(self, source: EventSource) -> None:
        """Begins to take calls on the running loop."""
        self._source = source
        asyncio.get_running_loop().add_reader(source.event_fd, self._on_readable)

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """Of the handlers that run."""
        return frozenset(self._tasks)

    async def next_event(self, timeout_s: float) -> None:
        """Returns when a handler has ended, the core had something to tell, or after the time.

        The core tells of events, and that its last connection has closed.
        """
        self._told = told = asyncio.get_running_loop().create_future()
        timer = told.get_loop().call_later(timeout_s, _settle, told)
        waiting = [told, *self._tasks]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            self._told = None

    async def cancel_all(self, timeout_s: float) -> None:
        """Cancels every handler and refuses calls that come; what is left after the time is left.

        Returns when all have ended, or after the time: a handler may suppress its cancellation.
        """
        self._is_closing = True
        for each in self._tasks:
            each.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._tasks and (left_s := deadline - loop.time()) > 0:
            await self.next_event(left_s)
        for each in self._tasks:
            _log.error("%s goes on although it was cancelled", each.get_name())
        for call in self._calls:  # also of handlers cancelled before their first step
            call.finish(Code.UNAVAILABLE, SHUTTING_DOWN, ())

    def detach(self) -> None:
        """Takes the last events; none comes any more."""
        if self._source is not None:
            asyncio.get_running_loop().remove_reader(self._source.event_fd)
            self._on_readable()
            self._source = None

    def _on_readable(self) -> None:
        assert self._source is not None
        for call, kind, payload in self._source.take_events():
            try:
                self._on_event(call, kind, payload)
            except Exception as error:  # the others of the batch are not to suffer from it
                self._give_up(call, kind, error)
        if self._told is not None:
            _settle(self._told)

    def _on_event(self, call: ServerCall, kind: int, payload: Any) -> None:
        if kind == CallEvent.STARTED:
            self._on_started(call)
            return
        if kind == CallEvent.VERIFY:  # its end is the core's, and no event
            if not self._is_closing:
                self._begin(f"VERIFY {call.path}", self._verify(call))
            return
        known = self._calls.get(call)
        if known is None:
            return
        if kind == CallEvent.WRITTEN:
            known.pipe.on_written()
        elif kind == CallEvent.CLOSED:
            self._on_closed(call, has_left=payload != 0)
        else:
            known.pipe.on_message(payload)

    def _on_started(self, call: ServerCall) -> None:
        if self._is_closing:
            call.finish(Code.UNAVAILABLE, SHUTTING_DOWN, ())
            return
        name = f"STARTED {call.path}"
        entry = self._calls[call] = _Entry(CallPipe(call))
        entry.task = self._begin(name, self._run(entry.pipe))

    def _begin(self, name: str, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(run, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _give_up(self, call: ServerCall, kind: int, error: Exception) -> None:
        """Ends a call one of whose events could not be taken; a defect, or a hostile client."""
        try:
            shown = presentable(error, f"event {kind} of a call")
            if kind == CallEvent.VERIFY:
                call.verified(shown.code, shown.message)
            else:
                call.finish(shown.code, shown.message, ())
        except Exception:
            _log.exception("a call could not be ended")
        entry = self._calls.get(call)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    def _on_closed(self, call: ServerCall, has_left: bool) -> None:
        """The call's last event: the status went out, or nobody is there to hear one."""
        entry = self._calls.pop(call)
        entry.pipe.close()
        if has_left and entry.task is not None:
            entry.task.cancel()

    async def _verify(self, call: ServerCall) -> None:
        """Has the token of a call of the core's own verified; the core then decides.

        What keeps the token from being verified ends the call.
        """
        try:
            await self._gate.recognise(_VERIFIED_GROUP, call.caller)
        except asyncio.CancelledError:
            call.verified(Code.UNAVAILABLE, SHUTTING_DOWN)
            raise
        except Exception as error:
            shown = presentable(error, call.path.rpartition("/")[2])
            retry_ms = -1 if shown.retry_after_ms is None else shown.retry_after_ms
            call.verified(shown.code, shown.message, retry_ms)
        else:
            call.verified()

    async def _run(self, pipe: CallPipe) -> None:
        """One call, to a status whatever happens."""
        try:
            await self._handle(pipe)
        except Exception:
            _log.exception("a call was given up without a reason for its client")
            pipe.call.finish(Code.UNKNOWN, "", ())

    async def _handle(self, pipe: CallPipe) -> None:
        """One call, from the search for its handler to its status."""
        call = pipe.call
        context = NativeContext(pipe, max_message_bytes=self._max_message_bytes)
        try:
            handler = self._handler_of(call)
            if handler is None:
                call.finish(Code.UNIMPLEMENTED, "Method not found!", ())
                return
            context = NativeContext(
                pipe,
                max_message_bytes=self._max_message_bytes,
                deserialize=handler.request_deserializer,
                serialize=handler.response_serializer,
            )
            await _respond(handler, context, await _request_of(handler, pipe, context))
        except asyncio.CancelledError:
            _log.debug("RPC cancelled for servicer method [%s]", call.path)
            context.cancel()
        except Exception as error:
            _conclude(error, context, pipe)
        finally:
            context.run_callbacks()

    def _handler_of(self, call: ServerCall) -> Any:
        """The grpc.RpcMethodHandler of a call; None where nobody has one."""
        handler = self._registered.get(call.path)
        if handler is not None:
            return handler
        details = _Details(call.path, call.metadata)
        answers = (each.service(details) for each in self._generic)
        return next((each for each in answers if each is not None), None)


class _Requests:
    """The messages of a call as an iterator, read as they are asked for."""

    def __init__(self, context: NativeContext) -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise StopAsyncIteration
        return message


async def _request_of(handler: Any, pipe: CallPipe, context: NativeContext) -> Any:
    """What the handler is called with: the one message, or an iterator over all of them.

    A client that sends another number of messages than one to a method that takes one has another
    idea of the method; gRPC has UNIMPLEMENTED for that.
    """
    if handler.request_streaming:
        return _Requests(context)
    message = await pipe.read()
    if message is None:
        text = f"{pipe.call.path} takes one message, got none"
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
    if await pipe.read() is not None:
        text = f"{pipe.call.path} takes one message, got more"
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
    return context.decoded(message)


async def _respond(handler: Any, context: NativeContext, request: Any) -> None:
    """Runs the handler and sends what it gives."""
    if not handler.response_streaming:
        unary = handler.stream_unary if handler.request_streaming else handler.unary_unary
        _refuse_unless(iscoroutinefunction(unary), unary)
        await context.finish_with(await unary(request, context))
        return
    streaming = handler.stream_stream if handler.request_streaming else handler.unary_stream
    _refuse_unless(iscoroutinefunction(streaming) or isasyncgenfunction(streaming), streaming)
    if iscoroutinefunction(streaming):
        await streaming(request, context)
    else:
        async with aclosing(streaming(request, context)) as messages:
            async for message in messages:
                await context.write(message)
    context.raise_if_over()
    context.finish()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refuse_unless(is_async: bool, behaviour: object) -> None:
    if not is_async:
        raise TypeError(f"{behaviour!r} would block the loop: expected a function that is async")


def _conclude(error: Exception, context: NativeContext, pipe: CallPipe) -> None:
    """The end of a call whose handler has raised."""
    if error is context.abort_error:
        return
    if pipe.is_closed and isinstance(error, grpc.aio.InternalError):
        _log.debug("a client left before it was answered by %s", pipe.call.path)
        return
    _log.error(
        "Unexpected [%s] raised by servicer method [%s]",
        type(error).__name__,
        pipe.call.path,
        exc_info=error,
    )
    context.fail(error)
