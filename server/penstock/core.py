"""The asyncio face of the native core, and the only importer of `_core`.

Requests and responses are protobuf bytes. What a few turns of the loop bring in is handed over as
one: a quick model's batch then runs right here, another's on its instances, which complete
requests without the GIL and make one eventfd readable per batch. Either way each outcome goes to
the future that waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

from penstock import _core
from penstock._core import (
    Access,
    AccessPolicy,
    Call,
    Caller,
    InputSpec,
    LoadedModel,
    OutputSpec,
    Principal,
    QueuePolicy,
    TensorSpec,
    Version,
    VersionSpec,
    encode_stream_error,
    set_logging,
)
from penstock.errors import Code, UnavailableError, core_error

__all__ = [
    "Access",
    "AccessPolicy",
    "Call",
    "CallEvent",
    "Caller",
    "Core",
    "HAS_TRANSPORT",
    "InputSpec",
    "LoadedModel",
    "OutputSpec",
    "Principal",
    "QueuePolicy",
    "Responses",
    "StreamReply",
    "TensorSpec",
    "Version",
    "VersionSpec",
    "encode_stream_error",
    "set_logging",
]

HAS_TRANSPORT = _core.HAS_TRANSPORT
"""Whether the core was built with the native transport."""


class CallEvent(IntEnum):
    """What happened to a call of the native transport: the second of an event's three."""

    STARTED = 0
    MESSAGE = 1
    HALF_CLOSED = 2
    WRITTEN = 3
    CLOSED = 4
    VERIFY = 5


# A gRPC call takes about four turns of the loop: calls that are under way together reach the core
# a few turns apart. They are handed over when this many turns brought no further request (that is
# microseconds when the loop has nothing else to do), or when this many requests are held.
_QUIET_TURNS = 6
_MAX_HELD = 16


_RETRIED = -2  # a completion's code: the model that the request waited for was loaded

_PREFIX_BYTES = 5  # of gRPC, before each message


@dataclass(frozen=True, slots=True)
class StreamReply:
    """One reply on a ModelStreamInfer stream.

    Attributes:
        payload: bytes of a ModelStreamInferResponse, for failures too.
        code: gRPC canonical code of the request; 0 = OK.
        message: why it failed; empty when OK.
        retry_after_ms: when to try again; negative = unknown.
        is_outcome: the request's last; else more replies to it may follow.
    """

    payload: bytes
    code: int
    message: str
    retry_after_ms: int = -1
    is_outcome: bool = True


class Responses:
    """The replies to one request of a stream, as they come: an asynchronous iterator, for one user.

    A decoupled request has any number of them; a failure is the last. Whoever takes one says so
    when the client has it (`taken`): a model stops that is too far ahead of its client.
    """

    __slots__ = ("_call", "_is_done", "_loop", "_replies", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._call: Call | None = None
        self._replies: deque[StreamReply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_done = False

    def __aiter__(self) -> Responses:
        return self

    async def __anext__(self) -> StreamReply:
        while not self._replies:
            if self._is_done:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._replies.popleft()

    def taken(self, reply: StreamReply) -> None:
        """The client has it."""
        if self._call is not None and not reply.is_outcome:
            self._call.taken(1, _PREFIX_BYTES + len(reply.payload))

    def cancel(self) -> None:
        """The client has gone; nothing where the request has ended."""
        if self._call is not None and not self._is_done:
            self._call.cancel()

    def began(self, call: Call) -> None:
        """The core has the request."""
        self._call = call

    async def placed(self) -> None:
        """Returns once the request's model is loaded, or it has failed.

        A model may be unloaded before its request has reached it, which then waits again.
        """
        while self._call is not None and self._call.waits and not self._is_done:
            self._waiter = self._loop.create_future()
            await self._waiter

    def put(self, code: int, payload: bytes | list[bytes] | None, message: str | None) -> None:
        """Takes a completion."""
        if code == _RETRIED:
            pass  # `placed` looks whether it waits again
        elif isinstance(payload, list):
            self._replies += [StreamReply(part, 0, "", is_outcome=False) for part in payload]
        else:
            self._is_done = True
            if payload is not None or code != 0:
                self._replies.append(self._outcome(code, payload or b"", message or ""))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _outcome(self, code: int, payload: bytes, message: str) -> StreamReply:
        after_ms = -1
        if code == Code.RESOURCE_EXHAUSTED and self._call is not None:
            after_ms = self._call.retry_after_ms()
        return StreamReply(payload, code, message, after_ms)


def deadline_ns(time_remaining_s: float | None) -> int:
    """A gRPC deadline as the core wants it.

    Args:
        time_remaining_s: seconds left, None or infinite for no deadline.

    Returns:
        Nanoseconds on the monotonic clock; 0 = none.
    """
    if time_remaining_s is None or time_remaining_s > 1e9:
        return 0
    return max(1, time.monotonic_ns() + int(time_remaining_s * 1e9))


class Core:
    """The engine, seen from the event loop.

    Confined to the loop it was started on, but for the blocking calls that `run` sends to threads.
    Life: constructed -> start -> ... -> close.
    """

    def __init__(
        self,
        *,
        backend_directories: Sequence[str],
        max_inflight_requests: int = 0,
        max_request_bytes: int = 0,
        max_background_bytes: int = 0,
        max_response_bytes: int = 0,
        allow_client_shm: bool = False,
        max_waiting_requests: int = 256,
        access: AccessPolicy | None = None,
    ) -> None:
        self.engine = _core.Engine(
            backend_directories=backend_directories,
            max_inflight_requests=max_inflight_requests,
            max_request_bytes=max_request_bytes,
            max_background_bytes=max_background_bytes,
            max_response_bytes=max_response_bytes,
            allow_client_shm=allow_client_shm,
            max_waiting_requests=max_waiting_requests,
            access=access,
        )
        self.access: Access = self.engine.access
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0  # requests queued since the last flush
        self._quiet_turns = 0  # turns of the loop since the last one was queued

    def start(self) -> None:
        """Begins to read completions on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.engine.completion_fd, self._on_readable)

    async def close(self, timeout_s: float = 30.0) -> bool:
        """Fails what is queued, joins the core's threads, delivers the last completions.

        Returns:
            Whether every thread ended in time; if not, the process must not wait for them.
        """
        has_ended: bool = await self.run(self.engine.shutdown, timeout_s)
        if self._loop is not None:
            self._loop.remove_reader(self.engine.demand_fd)
            self._loop.remove_reader(self.engine.completion_fd)
            self._on_readable()
            self._loop = None
        return has_ended

    def watch_demands(self, load: Callable[[str], None]) -> None:
        """`load` is called with each model that requests begin to wait for, until `close`."""

        def on_readable() -> None:
            for name in self.engine.take_demands():
                load(name)

        self._running_loop().add_reader(self.engine.demand_fd, on_readable)

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs one of the core's blocking calls in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, partial(function, *args, **kwargs))

    async def infer(
        self,
        request: bytes,
        deadline: int = 0,
        caller: Caller | None = None,
        *,
        background: bool = False,
    ) -> bytes:
        """Runs a ModelInferRequest.

        Args:
            request: its bytes.
            deadline: as `deadline_ns` gives it; 0 = none.
            caller: who asks, where an access policy wants to know.
            background: batch work: it runs in what other requests leave, if need be never.

        Returns:
            Bytes of the ModelInferResponse.

        Raises:
            CoreError: why there is none.
        """
        loop = self._running_loop()
        future: asyncio.Future[bytes | StreamReply] = loop.create_future()
        call = self._start(request, deadline, future, False, caller, background)
        try:
            outcome = await future
        except asyncio.CancelledError:
            call.cancel()
            raise
        if isinstance(outcome, bytes):
            return outcome
        is_exhausted = outcome.code == Code.RESOURCE_EXHAUSTED
        after_ms = call.retry_after_ms() if is_exhausted else -1
        raise core_error(outcome.code, outcome.message, after_ms)

    async def stream_infer(
        self, request: bytes, deadline: int = 0, caller: Caller | None = None
    ) -> StreamReply | Responses:
        """Runs one request of a stream; a failure is a reply, not an exception.

        Returns:
            The reply, once it is there; for a decoupled model the replies, at once.
        """
        responses = Responses(self._running_loop())
        call = self._start(request, deadline, responses, True, caller)
        responses.began(call)
        try:
            await responses.placed()
            if call.is_decoupled:
                return responses
            return await anext(responses)
        except asyncio.CancelledError:
            responses.cancel()
            raise

    def make_transport(self, **options: Any) -> _core.Transport:
        """Serves this engine; only where HAS_TRANSPORT."""
        return _core.Transport(self.engine, **options)

    def infer_stats(self) -> Mapping[str, Any]:
        """Engine-wide counters."""
        return self.engine.stats()

    def _start(
        self,
        request: bytes,
        deadline: int,
        tag: object,
        stream: bool,
        caller: Caller | None,
        background: bool = False,
    ) -> Call:
        """Hands a request over, to be run when the loop is quiet."""
        loop = self._running_loop()
        call = self.engine.infer(request, deadline, tag, stream, caller, background)
        self._hold(loop)
        return call

    def _hold(self, loop: asyncio.AbstractEventLoop) -> None:
        """A request more is to be flushed."""
        self._held += 1
        self._quiet_turns = 0
        if self._held == 1:
            loop.call_soon(self._turn)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of `start`; UnavailableError after `close`, which HTTP outlives by a rung."""
        if self._loop is None:
            raise UnavailableError("the server is shutting down")
        return self._loop

    def _turn(self) -> None:
        """Flushes once the loop has gone quiet or has brought in enough for one batch."""
        if self._loop is None:  # closed meanwhile: the core has ended what was held
            return
        self._quiet_turns += 1
        if self._held < _MAX_HELD and self._quiet_turns < _QUIET_TURNS:
            self._loop.call_soon(self._turn)
            return
        self._held = 0
        self._deliver(self.engine.flush())

    def _on_readable(self) -> None:
        self._deliver(self.engine.take_completions())

    def _deliver(self, completions: Sequence[_core.Completion]) -> None:
        for tag, code, payload, message in completions:
            if code == _RETRIED and self._loop is not None:
                self._hold(self._loop)
            if isinstance(tag, Responses):
                tag.put(code, payload, message)
            if isinstance(tag, Responses) or code == _RETRIED:
                continue
            future: asyncio.Future[bytes | StreamReply] = tag  # type: ignore[assignment]
            assert not isinstance(payload, list)
            if future.done():  # its caller has gone
                continue
            if code == 0:
                future.set_result(payload or b"")
            else:
                future.set_result(StreamReply(payload or b"", code, message or ""))
