"""Log lines on standard error, in the same two formats as the core's (csrc/base/log.cc).

::

    text  2026-01-31T12:00:00.000Z INFO x.app: ready
    json  {"time":"2026-01-31T12:00:00.000Z","level":"INFO","logger":"x.app","message":"ready"}

A line about a request or a model has `model`, `version` and `request_id` as far as they are known:
members of the object in JSON, `name=value` at the end of the line in text. They are given as
`extra` of Python's logging.

One event is one line: control characters of a message become spaces in text, escapes in JSON. A
traceback is a second field (`exception`) in JSON and follows, indented, in text. Payloads are never
logged.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from penstock.observe.lines import LineWriter

__all__ = [
    "ACCESS_FIELDS",
    "IS_LOST",
    "JsonFormatter",
    "LogSettings",
    "TextFormatter",
    "apply_settings",
    "set_up_logging",
]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOTHING = 60  # above every level
ACCESS_FIELDS = (
    *("method", "status", "model", "version", "request_id", "duration_ms"),
    *("received_bytes", "sent_bytes", "peer"),
)
"""What a line of the access log has, in its order."""
IS_LOST = "is_lost"
"""What a record has whose line was not written."""
_FIELDS = (*ACCESS_FIELDS, "dropped")
_TO_SPACES = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _level(record: logging.LogRecord) -> str:
    return "ERROR" if record.levelno >= logging.ERROR else record.levelname


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the line is about, beside its message."""
    given = record.__dict__
    return {name: given[name] for name in _FIELDS if name in given}


def _shown(value: object) -> str:
    """A value of a text line; in quotes where it could be read as more than one."""
    text = str(value)
    is_plain = text.isprintable() and not any(each in text for each in ' "=\\')
    return text if text and is_plain else _json(text)


def _json(value: object) -> str:
    """ASCII without DEL, which JSON has as it is and terminals may not."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


class TextFormatter(logging.Formatter):
    """One readable line per event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message = record.getMessage().translate(_TO_SPACES)
        line = f"{_timestamp(record)} {_level(record)} {record.name}: {message}"
        line += "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
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
            **_fields(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _json(fields)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Which lines are written, and how. Each level is on or off by itself, as Triton's are.

    Attributes:
        info: whether lines of the level are written.
        warning: the same.
        error: the same, and what is worse.
        verbose_level: debug lines are written unless it is 0; above 0 it makes no difference.
        json: lines are JSON objects.
    """

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0
    json: bool = False

    @classmethod
    def of(
        cls, level: Literal["debug", "info", "warning", "error"], form: Literal["text", "json"]
    ) -> LogSettings:
        """Every level from the given one on."""
        least = _LEVELS[level]
        return cls(least <= 20, least <= 30, True, int(least <= 10), form == "json")

    def writes(self, level: int) -> bool:
        """Whether a line of this level (a number of Python's logging) is written."""
        if level >= _LEVELS["error"]:
            return self.error
        if level >= _LEVELS["warning"]:
            return self.warning
        return self.info if level >= _LEVELS["info"] else self.verbose_level > 0

    def least_level(self) -> int:
        """No line below it is written."""
        return min((each for each in _LEVELS.values() if self.writes(each)), default=_NOTHING)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what the settings say; marks the records whose lines were lost (`IS_LOST`)."""

    def __init__(self, stream: TextIO, settings: LogSettings) -> None:
        super().__init__(stream)
        descriptor = _descriptor(stream)
        self._lines = None if descriptor is None else LineWriter(descriptor)
        self.take(settings)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record's lines, past the stream where that has a descriptor: see `lines`."""
        if self._lines is None:
            super().emit(record)
            return
        try:
            text = self.format(record) + self.terminator
            if not self._lines.write(text.encode(errors="backslashreplace")):
                record.__dict__[IS_LOST] = True
        except Exception:
            record.__dict__[IS_LOST] = True
            self.handleError(record)

    def take(self, settings: LogSettings) -> None:
        """Follows these settings from now on."""
        self._settings = settings
        self.setFormatter(JsonFormatter() if settings.json else TextFormatter())

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        return self._settings.writes(record.levelno) and bool(super().filter(record))


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return None


def set_up_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Makes the root logger write to standard error, and nothing else.

    Args:
        settings: to begin with; `apply_settings` changes them.
        stream: where to, in place of standard error.
    """
    logging.basicConfig(handlers=[_Handler(stream or sys.stderr, settings)], force=True)
    apply_settings(settings)


def apply_settings(settings: LogSettings) -> None:
    """Changes what is written and how. Threading: any thread, at any time."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, _Handler):
            handler.take(settings)
    root.setLevel(settings.least_level())
    # A library's idle talk is ours only when we look for trouble.
    quiet = logging.NOTSET if settings.verbose_level else logging.WARNING
    for name in ("asyncio", "grpc", "uvicorn"):
        logging.getLogger(name).setLevel(quiet)
