"""Log lines on standard error, in the same two formats as the core's (csrc/base/log.cc).

::

    text  2026-01-31T12:00:00.000Z INFO x.app: ready
    json  {"time":"2026-01-31T12:00:00.000Z","level":"INFO","logger":"x.app","message":"ready"}

One event is one line: control characters of a message become spaces in text, escapes in JSON. A
traceback is a second field (`exception`) in JSON and follows, indented, in text. Payloads are never
logged.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

__all__ = ["JsonFormatter", "TextFormatter", "set_up_logging"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TO_SPACES = {code: " " for code in range(0x20)}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _level(record: logging.LogRecord) -> str:
    return "ERROR" if record.levelno >= logging.ERROR else record.levelname


class TextFormatter(logging.Formatter):
    """One readable line per event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message = record.getMessage().translate(_TO_SPACES)
        line = f"{_timestamp(record)} {_level(record)} {record.name}: {message}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {text}" for text in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, on one line."""
        fields = {
            "time": _timestamp(record),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def set_up_logging(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["text", "json"],
    stream: TextIO | None = None,
) -> int:
    """Makes the root logger write to standard error, and nothing else.

    Args:
        level: least severe level that is written.
        form: how a line looks.
        stream: where to, in place of standard error.

    Returns:
        The level as a number, for the core.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    # A library's idle talk is ours only when we look for trouble.
    quiet = logging.NOTSET if level == "debug" else logging.WARNING
    for name in ("asyncio", "grpc", "uvicorn"):
        logging.getLogger(name).setLevel(quiet)
    return _LEVELS[level]
