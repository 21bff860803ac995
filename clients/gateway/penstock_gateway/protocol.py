"""HTTP/1.1 for uvicorn, with the patience and the bounds of `Options`.

A client has a time for its headers, one for its body (which what has come prolongs) and one for
reading its answer; header bytes, the wire's overhead over the body and connections are bounded.
What is over a bound is answered with `{"error": ...}` where an answer can still go out, and the
connection is closed. httptools (llhttp) refuses what two servers could read differently:
Content-Length beside Transfer-Encoding, two lengths, blanks before colons.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from penstock_gateway.cork import Cork
from penstock_gateway.options import Options

__all__ = [
    "ABANDONED",
    "ABOUT",
    "CANCEL",
    "REFUSED",
    "ROUTE",
    "LimitedProtocol",
    "OnRefused",
    "make_protocol",
]

OnRefused = Callable[[int, tuple[str, int] | None, int, float], None]
"""Told of an answer to what is no request, or not yet: status, client, bytes of its body, s since
the request or its connection began."""

ABOUT = "penstock.about"
"""Key of the ASGI scope: (model, version, request id) of an inference, for who logs it."""
ROUTE = "penstock.route"
"""Key of the ASGI scope: the pattern of the route that answers, for who counts requests."""
ABANDONED = "penstock.abandoned"
"""Key of the ASGI scope, true once nobody reads what the application answers."""
REFUSED = "penstock.refused"
"""Key of the ASGI scope: (status, bytes of the body) of the answer that went past the application,
which was still reading the request."""
CANCEL = "penstock.cancel"
"""Extension of the ASGI scope: give it the task to cancel when the client leaves."""

_SPARE_WIRE_BYTES = 65536
_WIRE_FACTOR = 8
"""A body may take so many times its bytes on the wire: chunks of one byte take six."""
_BYTES_PER_SECOND = 65536
"""A body that comes at this rate never runs out of time."""
_MAX_PIPELINED = 64
"""Requests that may wait behind the one that is answered: one packet holds thousands of heads."""


def make_protocol(options: Options, on_refused: OnRefused | None = None) -> type[LimitedProtocol]:
    """The class to give to uvicorn as `http`.

    `on_refused` is told of each answer that no request's application knows of.
    """
    told = staticmethod(on_refused or _tell_nobody)
    return type("BoundProtocol", (LimitedProtocol,), {"options": options, "on_refused": told})


def _tell_nobody(*_refused: object) -> None:
    pass


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `options` and `on_refused` are of the class that `make_protocol` makes."""

    options = Options()
    on_refused: OnRefused = staticmethod(_tell_nobody)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit_concurrency = None  # connections are refused when they are made
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0  # of the answer, when that was looked at last
        self._task: asyncio.Task[Any] | None = None
        self._running: RequestResponseCycle | None = None  # pipelined, `cycle` may be a later one
        self._is_in_head = True
        self._is_deaf = False  # nothing more is read
        self._messages = 0
        self._head_bytes = 0  # of the head that is being read, as parsed
        self._head_wire_bytes = 0  # as it came, at least: what is not parsed yet counts here
        self._body_bytes = 0
        self._wire_bytes = 0  # since the head that was read last
        self._body_began_s = 0.0
        self._began_s = self.loop.time()  # the connection, or the request that was read last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(cast(asyncio.Transport, Cork(transport)))
        if len(self.connections) > self.options.max_connections:
            self._refuse(503, "the gateway has as many connections as it may", retry=True)
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what is done for the client."""
        super().connection_lost(exc)
        self._is_deaf = True
        self._stop_timer()
        self._stop_write_timer()
        self.pipeline.clear()
        self._abandon()

    def data_received(self, data: bytes) -> None:
        """Reads on, within the bounds."""
        self._unset_keepalive_if_required()
        if self._is_deaf:
            return
        was_in_head, messages = self._is_in_head, self._messages
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # ignored, as HTTP allows; what follows is not HTTP
            self._is_deaf = True
            self.cycle.keep_alive = False
            return
        except httptools.HttpParserError:
            if not self._is_deaf:
                self._refuse(400, "the request is not HTTP/1.1")
            return
        if self._is_in_head:
            is_same = was_in_head and messages == self._messages
            self._head_wire_bytes = self._head_wire_bytes + len(data) if is_same else 0
            if self._head_wire_bytes > self.options.max_header_bytes:
                self._refuse(431, "the request's headers are too large")
        elif not was_in_head:
            self._check_wire(len(data))

    # Callbacks of the parser; an exception in one of them ends the parsing.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._head_bytes = self._head_wire_bytes = 0
        self._began_s = self.loop.time()
        cast(dict[str, Any], self.scope)["extensions"] = {CANCEL: self._run_as}

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one after the body (a trailer) is left out: the request is under way."""
        self._count_head(len(name) + len(value) + 4)
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        super().on_headers_complete()
        self._is_in_head = False
        self._body_bytes = self._wire_bytes = self._head_bytes = self._head_wire_bytes = 0
        if len(self.pipeline) > _MAX_PIPELINED:
            self._refuse(400, "more requests at a time than may wait on a connection")
            raise ConnectionError("too many pipelined requests")
        self._body_began_s = self.loop.time()
        self._wait(self.options.body_timeout_s, self._on_body_timeout)

    def on_body(self, body: bytes) -> None:
        """A part of the body, also of one that nobody wants any more."""
        self._body_bytes += len(body)
        if self._body_bytes > 2 * self.options.max_body_bytes + _SPARE_WIRE_BYTES:
            self._is_deaf = True
            self._close()
            raise ConnectionError("more of a body than is read to its end")
        cycle = self.cycle
        if cycle.response_complete:
            return
        # As uvicorn, which copies the first part, and mostly there is one, into a bytearray too.
        held: Any = cycle.body
        if not held:
            cycle.body = cast(bytearray, body)
        elif isinstance(held, bytearray):
            held += body
        else:
            cycle.body = bytearray(held) + body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._stop_timer()
        self._is_in_head = True
        self._messages += 1
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait_for_head()

    # What uvicorn calls.

    def on_response_complete(self) -> None:
        """The answer is out; waits for the next request, which may be there."""
        self._task = None
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if not self._is_in_head and self.expect_100_continue:
            self._close()  # whether the body comes now is the client's choice
        elif self.transport.is_closing():
            self._watch_writing()
        elif self._is_in_head and not self.pipeline:
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP."""
        self._refuse(400, msg)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_write_timer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _run_as(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task
        if task is not None and self._running is not None and ABANDONED in self._running.scope:
            task.cancel()  # its client left before it began

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _abandon(self) -> None:
        """Ends what is being done for the client, who gets no answer."""
        if self._running is None or not self._is_answering():
            return
        cast(dict[str, Any], self._running.scope)[ABANDONED] = True
        self._running.disconnected = True
        self._running.message_event.set()
        if self._task is not None:
            self._task.cancel()

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self.options.max_header_bytes:
            self._refuse(431, "the request's headers are too large")
            raise ConnectionError("headers over the limit")

    def _check_wire(self, size_bytes: int) -> None:
        """Chunks may be small, but not all frame and no picture."""
        self._wire_bytes += size_bytes
        if self._wire_bytes > _WIRE_FACTOR * self._body_bytes + _SPARE_WIRE_BYTES:
            self._refuse(400, "the request's chunks are smaller than what frames them")

    def _wait_for_head(self) -> None:
        self._wait(self.options.header_timeout_s, self._on_head_timeout)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _watch_writing(self) -> None:
        """Ends the connection once its client has read nothing for the time it has."""
        self._stop_write_timer()
        self._unread_bytes = cast(Cork, self.transport).get_write_buffer_size()
        seconds = self.options.write_timeout_s
        self._write_timer = self.loop.call_later(seconds, self._on_write_timeout)

    def _on_write_timeout(self) -> None:
        if cast(Cork, self.transport).get_write_buffer_size() < self._unread_bytes:
            self._watch_writing()
        else:
            self.transport.abort()

    def _close(self) -> None:
        """Closes once what is left of the answer was read, or its client does not read on."""
        self.transport.close()
        self._watch_writing()

    def _on_head_timeout(self) -> None:
        if self._head_bytes or self._head_wire_bytes:
            self._refuse(408, "the request's headers did not come in time")
        else:
            self._is_deaf = True
            self._close()

    def _on_body_timeout(self) -> None:
        allowed_s = self.options.body_timeout_s + self._body_bytes / _BYTES_PER_SECOND
        left_s = self._body_began_s + allowed_s - self.loop.time()
        if self.flow.read_paused:  # it is not the client that is slow
            self._body_began_s = self.loop.time()
            self._wait(self.options.body_timeout_s, self._on_body_timeout)
        elif left_s > 0:
            self._wait(left_s, self._on_body_timeout)
        else:
            self._refuse(408, "the request's body did not come in time")

    def _refuse(self, status: int, message: str, *, retry: bool = False) -> None:
        """Ends the connection, with an answer unless one has begun, is out or another is due."""
        self._is_deaf = True
        self._stop_timer()
        running = self._running
        is_due = self._is_answering()
        if is_due and running is not None:
            # In its own body: it is this request that is refused. Behind it: it is another one.
            is_due = running is not self.cycle or running.response_started or self._is_in_head
            self._abandon()
        is_answered = not self._is_in_head and self.cycle.response_complete
        if not is_due and not is_answered:
            body = json.dumps({"error": message}).encode()
            if running is not None and self._is_answering():
                cast(dict[str, Any], running.scope)[REFUSED] = (status, len(body))
            else:
                seconds = self.loop.time() - self._began_s
                self.on_refused(status, self.client, len(body), seconds)
            head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            if retry:
                head += b"retry-after: 1\r\n"
            head += b"connection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head + body)
        self._close()
