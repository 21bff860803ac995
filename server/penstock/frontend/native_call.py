"""Messages of one call of the native transport, awaited.

The core is told to read or to write and answers by an event, one at a time each way. What is here
gives an answer to the coroutine that waits for it, and keeps it where that one has been cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import grpc

from penstock.core import Caller

__all__ = ["CallPipe", "Metadata", "ServerCall"]

Metadata = Sequence[tuple[str, str | bytes]]

_CLIENT_LEFT = "the client left before it was answered"


class ServerCall(Protocol):
    """What of `penstock.core.ServerCall` the face needs. After the call's end it does nothing."""

    @property
    def path(self) -> str:
        """As /package.Service/Method."""

    @property
    def metadata(self) -> Metadata:
        """What the client sent, without gRPC's own."""

    @property
    def peer(self) -> str:
        """As gRPC writes an address: ipv4:127.0.0.1:4711, unix:."""

    @property
    def connection(self) -> str:
        """Tells its connection from all others, also where they have one peer."""

    @property
    def deadline_ns(self) -> int:
        """On time.monotonic_ns(); 0 = none."""

    @property
    def auth_properties(self) -> tuple[tuple[str, bytes], ...]:
        """What TLS tells of the client, in gRPC's words; a key may come again. Plain text: none."""

    @property
    def caller(self) -> Caller | None:
        """Whose token is to be verified; of a VERIFY event only."""

    def read(self) -> None:
        """Answered by MESSAGE or HALF_CLOSED; one at a time."""

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Sends headers."""

    def write(self, message: bytes) -> None:
        """Answered by WRITTEN; one at a time."""

    def finish(self, code: int, details: str, trailing_metadata: Metadata) -> None:
        """Sends the status, after what was written."""

    def verified(self, code: int = 0, message: str = "", retry_after_ms: int = -1) -> None:
        """The verification has ended; a code ends the call, without one the core decides."""


class CallPipe:
    """Reads and writes of one call.

    Threading: confined to the event loop.
    Ownership: holds the call.
    Lifecycle: ends with `close`; who waits for a message then gets none, who writes an error.
    """

    def __init__(self, call: ServerCall) -> None:
        self.call = call
        self.is_closed = False
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[bytes | None] | None = None
        self._is_reading = False  # the core owes an answer
        self._unread: bytes | None = None  # came when nobody waited for it any more
        self._has_all = False  # the client sends no more
        self._writer: asyncio.Future[None] | None = None
        self._is_writing = False  # the core owes an answer

    async def read(self) -> bytes | None:
        """The next message; None once the client sends no more, or has gone.

        Raises:
            grpc.aio.UsageError: another coroutine reads.
        """
        if self._reader is not None:
            raise grpc.aio.UsageError("a message of this call is being read already")
        if self._unread is not None:
            message, self._unread = self._unread, None
            return message
        if self._has_all or self.is_closed:
            return None
        if not self._is_reading:  # else the answer to a read that was cancelled is this one's
            self._is_reading = True
            self.call.read()
        reader: asyncio.Future[bytes | None] = self._loop.create_future()
        self._reader = reader
        try:
            return await reader
        except asyncio.CancelledError:
            if reader.done() and not reader.cancelled():  # it came in the same turn of the loop
                self._unread = reader.result()
            raise
        finally:
            self._reader = None

    async def write(self, message: bytes) -> None:
        """Returns when the next may be written.

        Raises:
            grpc.aio.UsageError: another coroutine writes.
            grpc.aio.InternalError: the client has gone.
        """
        await self.idle()
        self.write_last(message)
        await self._written()

    def write_last(self, message: bytes) -> None:
        """Writes what is followed by the status: nobody waits for its going out."""
        if self.is_closed:
            raise grpc.aio.InternalError(_CLIENT_LEFT)
        self._is_writing = True
        self.call.write(message)

    async def idle(self) -> None:
        """Returns when what was written by somebody who was cancelled since has gone out.

        Raises:
            grpc.aio.UsageError: another coroutine writes.
            grpc.aio.InternalError: the client has gone.
        """
        if self._writer is not None:
            raise grpc.aio.UsageError("a message of this call is being written already")
        if self._is_writing and not self.is_closed:
            await self._written()

    def on_message(self, message: bytes | None) -> None:
        """The answer to a read; None = the client sends no more."""
        self._is_reading = False
        self._has_all = self._has_all or message is None
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(message)
        else:
            self._unread = message

    def on_written(self) -> None:
        """The answer to a write."""
        self._is_writing = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def close(self) -> None:
        """No answer comes any more."""
        self.is_closed = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self._writer is not None and not self._writer.done():
            self._writer.set_exception(grpc.aio.InternalError(_CLIENT_LEFT))

    async def _written(self) -> None:
        self._writer = self._loop.create_future()
        try:
            await self._writer
        finally:
            self._writer = None
