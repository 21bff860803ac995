"""The core's transport, of Python: clients are made by hand, events come by an eventfd."""

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import Any

from penstock.core import Caller, CallEvent

LEFT, LATE = 1, 4
"""Why a call was closed before its status was sent."""


@dataclass(eq=False)
class FakeCall:
    """A call, seen from both sides. The core's rules are assertions: one read, one write at a time.

    Attributes:
        is_slow: what is written goes out only when `let_out` is called.
    """

    transport: "FakeTransport"
    path: Any
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    peer: str = "ipv4:127.0.0.1:4711"
    connection: str = "ipv4:127.0.0.1:4711#1"
    auth_properties: tuple[tuple[str, bytes], ...] = ()
    deadline_ns: int = 0
    caller: Any = None
    is_slow: bool = False
    headers: Any = None
    written: list[bytes] = field(default_factory=list)
    status: tuple[int, str, Any] | None = None
    verdict: tuple[int, str, int] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: list[bytes | None] = field(default_factory=list)
    _is_reading: bool = False
    _is_writing: bool = False

    # The client

    def send(self, *messages: bytes, end: bool = False) -> "FakeCall":
        """The client sends messages, and with `end` no more."""
        self._sent += [*messages, None] if end else messages
        self._answer_read()
        return self

    def leave(self, reason: int = LEFT) -> None:
        """The client has gone, or its deadline has passed."""
        self._close(reason)

    def let_out(self) -> None:
        """What was written goes out."""
        self._is_writing = False
        self.transport.push(self, CallEvent.WRITTEN)

    # The server

    def read(self) -> None:
        if self.over.is_set():
            return
        assert not self._is_reading, "two reads at a time"
        self._is_reading = True
        self._answer_read()

    def send_initial_metadata(self, metadata: Any) -> None:
        assert self.headers is None, "headers are sent once"
        self.headers = metadata

    def write(self, message: bytes) -> None:
        if self.over.is_set():
            return
        assert not self._is_writing, "two writes at a time"
        assert self.status is None, "a message after the status"
        self._is_writing = True
        self.written.append(message)
        if not self.is_slow:
            self.let_out()

    def finish(self, code: int, details: str, trailing_metadata: Any) -> None:
        if self.over.is_set():
            return
        assert self.status is None, "two statuses"
        details.encode()  # raises where the binding does
        self.status = (code, details, tuple(trailing_metadata))
        self._close(0)

    def verified(self, code: int = 0, message: str = "", retry_after_ms: int = -1) -> None:
        assert self.verdict is None, "verified twice"
        self.verdict = (code, message, retry_after_ms)
        self.transport.active -= 1
        self.over.set()  # and no event: the call is the core's own

    def _answer_read(self) -> None:
        if self._is_reading and self._sent:
            self._is_reading = False
            message = self._sent.pop(0)
            kind = CallEvent.HALF_CLOSED if message is None else CallEvent.MESSAGE
            self.transport.push(self, kind, message)

    def _close(self, reason: int) -> None:
        if not self.over.is_set():
            self.over.set()
            self.transport.active -= 1
            self.transport.push(self, CallEvent.CLOSED, reason)


class FakeTransport:
    """What of `_core.Transport` the face uses; remembers what it was told.

    Each call that is not over has a connection of its own.

    Attributes:
        connections: further connections that are open.
        has_ended: what `stop` answers.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.told: list[Any] = []
        self.active = 0
        self.connections = 0
        self.has_ended = True
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._events: list[tuple[FakeCall, int, Any]] = []

    def call(self, path: str, *, event: int = CallEvent.STARTED, **facts: Any) -> FakeCall:
        """A client calls."""
        made = FakeCall(self, path, **facts)
        self.active += 1
        self.push(made, event)
        return made

    def push(self, call: FakeCall, kind: int, payload: Any = None) -> None:
        self._events.append((call, int(kind), payload))
        os.eventfd_write(self.event_fd, 1)

    def take_events(self) -> list[tuple[FakeCall, int, Any]]:
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:
            pass
        events, self._events = self._events, []
        return events

    def use_tls(self, **files: Any) -> None:
        self.told.append(("use_tls", files))

    def listen(self, fd: int) -> None:
        self.told.append("listen")

    def share_listeners(self) -> None:
        self.told.append("share_listeners")

    def start(self) -> None:
        self.told.append("start")

    def set_loaded(self) -> None:
        self.told.append("set_loaded")

    def close_streams(self) -> None:
        self.told.append("close_streams")

    def drain(self) -> None:
        self.told.append("drain")

    def close_connections(self) -> None:
        """The further connections close, which is told as the core tells it: without an event."""
        self.connections = 0
        os.eventfd_write(self.event_fd, 1)

    def stats(self) -> dict[str, int]:
        return {"open_connections": self.connections + self.active}

    def stop(self, timeout_s: float) -> bool:
        self.told.append("stop")
        return self.has_ended

    def close(self) -> None:
        os.close(self.event_fd)


class FakeGate:
    """Verifies once it is released."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.failure: Exception | None = None

    async def recognise(self, group: str, caller: Caller | None) -> None:
        self.asked.append((group, caller))
        self.begun.set()
        await self.release.wait()
        if self.failure is not None:
            raise self.failure


def in_seconds(seconds: float) -> int:
    """A deadline."""
    return time.monotonic_ns() + int(seconds * 1e9)
