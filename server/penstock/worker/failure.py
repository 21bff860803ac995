"""What is wrong with a model, in words for whoever wrote it, and with its outputs."""

from __future__ import annotations

import sys
import traceback

MAX_TEXT_BYTES = 8192
"""Of what is told of a failure."""


class ModelFault(Exception):
    """The model's file, class or configuration is not what it must be; the text says how."""


class NoRoomError(Exception):
    """Outputs take more bytes than they may, or than the server has memory for."""


def describe(error: BaseException) -> str:
    """An exception in one line: its type and its text."""
    text = str(error).strip()
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def report(error: BaseException) -> None:
    """Writes an exception with its traceback to the log."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        print(f"<3>{line}", file=sys.stderr)
    sys.stderr.flush()
