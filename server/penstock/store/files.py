"""Files that are durable before anyone is told of them, and sources that cannot lead elsewhere."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.store.failures import (
    NoRoomError,
    RefusedError,
    StoreError,
    StoreUnavailableError,
)
from penstock.store.manifest import MAX_DEPTH, MAX_FILES

__all__ = [
    "SourceFile",
    "hash_file",
    "list_files",
    "make_directories",
    "open_source",
    "os_failure",
    "sync_directory",
    "sync_tree",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that an artifact is made of: its path in there, and where or what its bytes are."""

    path: str
    source: Path | bytes


def os_failure(what: str, error: OSError) -> StoreError:
    """What to tell of a failure of the file system, without its path."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return NoRoomError(f"{what}: {reason}; nothing was changed")
    return StoreUnavailableError(f"{what}: {reason}")


def list_files(root: Path) -> list[str]:
    """Paths of the files below a directory, relative to it, with /; hidden ones too.

    Raises:
        RefusedError: one is a link or neither file nor directory; there are too many or too deep.
        StoreUnavailableError: a directory cannot be read.
    """
    found: list[str] = []
    for path, entry in _walk(root, "", 0):
        if entry.is_symlink():
            raise RefusedError(f"'{path}' is a symbolic link: an artifact holds files only")
        if not entry.is_file(follow_symlinks=False):
            raise RefusedError(f"'{path}' is neither a file nor a directory")
        found.append(path)
        if len(found) > MAX_FILES:
            raise RefusedError(f"'{root.name}' has more than {MAX_FILES} files")
    return found


def _walk(directory: Path, shown: str, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
    if depth > MAX_DEPTH:
        raise RefusedError(f"'{shown[:80]}' is nested deeper than {MAX_DEPTH}")
    try:
        with os.scandir(directory) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise os_failure(f"cannot read '{shown or directory.name}'", error) from error
    for entry in entries:
        path = f"{shown}/{entry.name}" if shown else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(directory / entry.name, path, depth + 1)
        else:
            yield path, entry


def open_source(path: Path) -> io.FileIO:
    """Opens a regular file to read; a link or a device that took its place is refused.

    Raises:
        RefusedError: it is not a regular file.
        StoreUnavailableError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise RefusedError(f"'{path.name}' is not a regular file") from error
        raise os_failure(f"cannot read '{path.name}'", error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError(f"'{path.name}' is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def hash_file(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a regular file. Raises as `open_source` does."""
    with open_source(path) as file:
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return os.fstat(file.fileno()).st_size, digest
        except OSError as error:
            raise os_failure(f"cannot read '{path.name}'", error) from error


def make_directories(path: Path) -> None:
    """Makes a directory and those above it, durably; nothing where it is there."""
    if path.is_dir():
        return
    make_directories(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_tree(path: Path) -> None:
    """Makes the files and directories below a directory durable, and the names in it."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            with open_source(Path(directory, name)) as file:
                os.fsync(file.fileno())
        sync_directory(Path(directory))


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
