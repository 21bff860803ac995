"""How much memory this process and those that it started have to themselves."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

__all__ = ["anonymous_bytes", "trim", "trimmed"]

_PROC = Path("/proc")
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


def anonymous_bytes() -> int:
    """Blocking. Resident bytes that are no file's, of this process and all below it.

    What cannot be read, since a process has just ended, counts nothing.
    """
    total, pending = 0, ["self"]
    while pending:
        process = _PROC / pending.pop()
        found = _ANONYMOUS.search(_read(process / "status"))
        total += int(found[1]) << 10 if found else 0
        try:
            threads = list((process / "task").iterdir())
        except OSError:
            continue
        for thread in threads:
            pending += _read(thread / "children").split()
    return total


def trim() -> None:
    """Blocking. Gives free memory of the allocator back to the system, where it can."""
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is not None:
        function(ctypes.c_size_t(0))


def trimmed(measure: Callable[[], int]) -> int:
    """Blocking. What is measured once the allocator has given back what is free."""
    trim()
    return measure()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
