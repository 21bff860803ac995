"""Folders that several servers share: locks on them that hold, and how much is in them."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["is_at", "lock_now", "modified_ns", "size_of"]


def lock_now(descriptor: int) -> bool:
    """Whether nobody else has it; then it is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether what is open is what the path leads to."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def modified_ns(entry: Path) -> int:
    """When it was; 0 where it is not there any more."""
    try:
        return os.stat(entry).st_mtime_ns
    except FileNotFoundError:
        return 0


def size_of(entry: Path) -> int:
    """Bytes of the files in a directory, which others may be filling, moving or removing."""
    size_bytes = 0
    for directory, _, names in os.walk(entry):  # passes over what is not there any more
        for name in names:
            with suppress(FileNotFoundError):
                size_bytes += os.lstat(os.path.join(directory, name)).st_size
    return size_bytes
