"""The access log of what Python answers: one line per call or HTTP request, off its path.

The native transport writes its own (csrc/transport/access_log.h), of the same form. A line tells
what was asked of whom, how it ended, how long it took and how many bytes went either way: no
payload, no header, no query and nobody's key.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from penstock.observe.log import ACCESS_FIELDS, IS_LOST

__all__ = ["Access", "AccessLog"]

_CAPACITY = 8192
_MAX_TEXT = 128
_DROPPED = "calls are not in the access log: they came faster than it is written"

_log = logging.getLogger("penstock.access")


@dataclass(slots=True)
class Access:
    """One call.

    Attributes:
        method: path of an RPC; verb and path of an HTTP request.
        status: gRPC's word, or HTTP's number.
        model: that it is about; "" = none.
        version: of it, as it was asked for.
        request_id: the client's.
        duration_ms: from its beginning to the end of its answer.
        received_bytes: of its messages or its body.
        sent_bytes: of its answer.
        peer: the client's address, as gRPC writes it.
    """

    method: str
    status: str = "CANCELLED"
    model: str = ""
    version: str = ""
    request_id: str = ""
    duration_ms: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0
    peer: str = ""


class AccessLog:
    """Takes calls and writes their lines on a thread of its own.

    Threading: `write` on any thread, `close` on the owner's.
    Ownership: its thread, from the first call to `close`.
    Cost: a call is one append; what comes faster than it is written is dropped and counted.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._waiting: queue.Queue[Access | None] = queue.Queue(capacity)
        self._thread: threading.Thread | None = None
        self._overrun = 0  # counted by who writes
        self._lost = 0  # counted by the thread
        self._told = 0  # of both

    @property
    def dropped(self) -> int:
        """Calls that have no line: they came too fast, or the line could not be written."""
        return self._overrun + self._lost

    def write(self, access: Access) -> None:
        """Never blocks. Whether there is to be a line is settled here: it may be written later."""
        if not _log.isEnabledFor(logging.INFO):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ps-access", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(access)
        except queue.Full:
            self._overrun += 1

    def close(self) -> None:
        """Returns once what was taken is written."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (access := self._waiting.get()) is not None:
            try:
                self._lost += not _log_line(logging.INFO, "call", _fields(access))
            except Exception:  # no memory, or a handler's defect: other lines follow
                self._lost += 1
            if self._waiting.empty():
                self._tell_dropped()
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        """Tells of what was not told yet; later, where this line has no room either."""
        dropped = self.dropped
        count = dropped - self._told
        if count == 0:
            return
        with suppress(Exception):
            if _log_line(logging.WARNING, f"{count} {_DROPPED}", {"dropped": count}):
                self._told = dropped


class Stopwatch:
    """How long a call takes."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def milliseconds(self) -> float:
        """Since it was made."""
        return round((time.monotonic() - self._began_s) * 1e3, 3)


def _log_line(level: int, text: str, extra: dict[str, Any]) -> bool:
    """Whether the line is written, or nobody wants it."""
    if not _log.isEnabledFor(level):
        return True
    record = _log.makeRecord(_log.name, level, __file__, 0, text, (), None, extra=extra)
    _log.handle(record)
    return not getattr(record, IS_LOST, False)


def _fields(access: Access) -> dict[str, Any]:
    values = {name: getattr(access, name) for name in ACCESS_FIELDS}
    return {
        name: value[:_MAX_TEXT] if isinstance(value, str) else value
        for name, value in values.items()
        if value != ""
    }
