"""Lines to a descriptor that others may write to: whole, or not there and counted."""

from __future__ import annotations

import os
from select import PIPE_BUF

__all__ = ["LineWriter"]


class LineWriter:
    """Writes as the core does (csrc/base/log.h): in pieces that a pipe takes whole or not at all.

    A line that is longer than such a piece goes alone, and may be cut short or mixed with another
    process's.

    Threading: one call at a time.
    Ownership: borrows the descriptor.
    Blocking: as long as the descriptor does.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_torn = False  # the last line lacks its end

    def write(self, lines: bytes) -> bool:
        """Writes whole lines; False where one was lost: there is no room, or nobody reads."""
        is_whole = True
        at = 0
        while at < len(lines):
            end = _piece_end(lines, at)
            is_whole = self._write_piece(lines[at:end]) and is_whole
            at = end
        return is_whole

    def _write_piece(self, piece: bytes) -> bool:
        if self._is_torn and self._write_some(b"\n") == 0:
            return False
        written = self._write_some(piece)
        self._is_torn = 0 < written < len(piece)
        return written == len(piece)

    def _write_some(self, text: bytes) -> int:
        """Until nothing is left or nothing more is taken; how much was written."""
        at = 0
        try:
            while at < len(text):
                at += os.write(self._descriptor, text[at:])
        except OSError:  # full, closed, or nobody reads: the line is lost, nothing else
            pass
        return at


def _piece_end(lines: bytes, at: int) -> int:
    if len(lines) - at <= PIPE_BUF:
        return len(lines)
    end = lines.rfind(b"\n", at, at + PIPE_BUF)
    if end < 0:
        end = lines.find(b"\n", at)
    return end + 1 or len(lines)
