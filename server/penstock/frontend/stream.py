"""One ModelStreamInfer call: requests pipelined, responses in the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import grpc

from penstock.core import Responses, StreamReply
from penstock.errors import UnavailableError, core_error

__all__ = ["HALF_CLOSE", "SHUTTING_DOWN", "InferStream", "StreamContext"]

HALF_CLOSE: Any = grpc.aio.EOF  # type: ignore[attr-defined]
"""What `StreamContext.read` returns when the client will send no more."""

SHUTTING_DOWN = "GRPC server is shutting down and has stopped accepting new requests."


class StreamContext(Protocol):
    """What of grpc.aio.ServicerContext a stream needs."""

    def invocation_metadata(self) -> Any:
        """Pairs of key and value."""

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""

    async def write(self, message: bytes) -> None:
        """Sends a message."""


class InferStream:
    """Reads requests, starts each at once, writes the replies.

    Replies go in the order of the requests, but those of decoupled models, which go as they come:
    a request's in their order. At most `max_inflight` requests are read and not yet answered: a
    client that does not read its replies, or a slow model, stops the reading, and HTTP/2 flow
    control tells the client. A decoupled model is told what the client has taken.

    Threading: confined to the event loop.
    Ownership: the tasks of its requests; none outlives `run`, whichever way it ends.
    Lifecycle: `run` once.
    """

    def __init__(
        self,
        *,
        infer: Callable[[bytes], Coroutine[Any, Any, StreamReply | Responses]],
        context: StreamContext,
        max_inflight: int,
        closing: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._infer = infer
        self._context = context
        self._closing = closing
        self._slots = asyncio.Semaphore(max_inflight)
        self._writing = asyncio.Lock()  # the context has one writer at a time
        # Each gives the reply that is next, or None where a relay has it.
        self._replies: asyncio.Queue[asyncio.Task[StreamReply | None] | None] = asyncio.Queue()
        self._relays: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []  # of relays
        self._awaited: asyncio.Task[StreamReply | None] | None = None  # by `run`
        self._ends_at_error = ("triton_grpc_error", "true") in {
            (pair[0], pair[1]) for pair in context.invocation_metadata() or ()
        }

    async def run(self) -> None:
        """Returns after half-close, once every request was answered.

        Raises:
            CoreError: the stream ends with this status: the server closes, or a request failed and
                the client asked (metadata `triton_grpc_error: true`) for errors as statuses.
        """
        reader = asyncio.create_task(self._read())
        closer = asyncio.create_task(self._stop_reading_on_close(reader))
        try:
            while (task := await self._replies.get()) is not None:
                if (reply := await self._outcome(task)) is not None:
                    await self._write(reply)
                    self._slots.release()
                self._raise_failure()
            await asyncio.wait({reader, *self._relays}, return_when=asyncio.FIRST_EXCEPTION)
            self._raise_failure()
            if reader.cancelled():
                raise UnavailableError(SHUTTING_DOWN)
            reader.result()
        finally:
            closer.cancel()
            reader.cancel()
            self._abandon()

    async def _outcome(self, task: asyncio.Task[StreamReply | None]) -> StreamReply | None:
        """What the task gives; a relay that fails meanwhile does not wait for it."""
        self._awaited = task
        try:
            return await task
        except asyncio.CancelledError:
            self._raise_failure()
            raise
        finally:
            self._awaited = None

    async def _read(self) -> None:
        try:
            while True:
                await self._slots.acquire()
                request = await self._context.read()
                if request is HALF_CLOSE:
                    return
                self._replies.put_nowait(asyncio.create_task(self._start(request)))
        finally:
            self._replies.put_nowait(None)

    async def _stop_reading_on_close(self, reader: asyncio.Task[None]) -> None:
        await self._closing()
        reader.cancel()

    async def _start(self, request: bytes) -> StreamReply | None:
        reply = await self._infer(request)
        if isinstance(reply, StreamReply):
            return reply
        relay = asyncio.create_task(self._relay(reply))
        self._relays.add(relay)
        relay.add_done_callback(partial(self._on_relayed, reply))
        return None

    async def _relay(self, responses: Responses) -> None:
        async for reply in responses:
            await self._write(reply)
            responses.taken(reply)

    def _on_relayed(self, responses: Responses, relay: asyncio.Task[None]) -> None:
        responses.cancel()  # here: a task that is cancelled before it began runs nothing
        self._relays.discard(relay)
        self._slots.release()
        failure = None if relay.cancelled() else relay.exception()
        if failure is not None:
            self._failures.append(failure)
            if self._awaited is not None:
                self._awaited.cancel()
            self._replies.put_nowait(asyncio.create_task(_nothing()))  # wakes `run`

    def _raise_failure(self) -> None:
        if self._failures:
            raise self._failures[0]

    async def _write(self, reply: StreamReply) -> None:
        if reply.code != 0 and self._ends_at_error:
            raise core_error(reply.code, reply.message, reply.retry_after_ms)
        async with self._writing:
            await self._context.write(reply.payload)

    def _abandon(self) -> None:
        for relay in self._relays:
            relay.cancel()
        while not self._replies.empty():
            task = self._replies.get_nowait()
            if task is not None:
                task.cancel()


async def _nothing() -> None:
    return None
