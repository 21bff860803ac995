"""Copies that are hashed on the way: what is large on a second thread, while the next bytes come.

A file is copied within the kernel, by reference where the file system can (XFS, Btrfs), else from
page to page: its bytes pass through this process once, to be hashed, and not twice. What is hashed
is what the target holds, so it does not matter what the source did meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["copy_file", "copy_hashed", "write_all"]

_CHUNK_BYTES = 4 << 20
_RANGE_BYTES = 2 * _CHUNK_BYTES
_BEHIND_BYTES = 8 * _CHUNK_BYTES
"""So far behind the end of what is written the disk should be done."""
_HASHED_BYTES = 1 << 20
"""Read at a time to be hashed: few enough to stay in a processor's cache."""
_NOT_HERE = (
    *(errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP),
    *(errno.EPERM, errno.EACCES, errno.ETXTBSY, errno.EBADF),
)
"""Why the kernel does not copy, between these files or at all; what is really wrong, the plain copy
that follows meets too."""


def copy_file(
    source: io.FileIO, target: io.FileIO, moved: Callable[[int], None] = lambda _: None
) -> tuple[int, str]:
    """Copies a file to its end. Returns the number of bytes at the target and their SHA-256.

    Memory lets go of what was read: nobody is expected to read the source soon again.

    Args:
        source: at its beginning.
        target: empty, to write and to read; a file without a buffer.
        moved: is told of bytes as they are copied.
    """
    digest = hashlib.sha256()
    copied = 0
    if os.fstat(source.fileno()).st_size >= _CHUNK_BYTES:
        copied = _copy_in_kernel(source, target, digest, moved)

    def advise(offset: int, count: int) -> None:
        _let_go_of_read(source.fileno, copied + offset, count)

    # Usually nothing is left: both files are at the end of what was copied.
    return copied + _copy(source, target, digest, advise, moved), digest.hexdigest()


def copy_hashed(
    source: io.FileIO | io.BytesIO,
    target: io.FileIO,
    *,
    is_durable: bool = False,
    moved: Callable[[int], None] = lambda _: None,
) -> tuple[int, str]:
    """Copies to the end. Returns the number of bytes and their SHA-256.

    Args:
        source: to read from.
        target: to write to; a file without a buffer.
        is_durable: the disk begins to write at once, and all is on it when this returns.
        moved: is told of bytes as they are copied.
    """
    digest = hashlib.sha256()
    after_write = _write_back if is_durable else _ignore

    def advise(offset: int, count: int) -> None:
        after_write(target.fileno, offset, count)

    size_bytes = _copy(source, target, digest, advise, moved)
    if is_durable:
        os.fsync(target.fileno())
    return size_bytes, digest.hexdigest()


def _copy_in_kernel(
    source: io.FileIO, target: io.FileIO, digest: Any, moved: Callable[[int], None]
) -> int:
    """Copies as far as the kernel does; returns the number of bytes, of which the files are behind.

    The kernel copies the next range while this one is hashed.
    """
    offset = 0
    buffer = memoryview(bytearray(_HASHED_BYTES))
    with ThreadPoolExecutor(1, "hash") as hasher:
        hashing = hasher.submit(_ignore)
        while count := _copy_range(source, target):
            _let_go_of_read(source.fileno, offset, count)
            hashing.result()
            hashing = hasher.submit(_hash_range, target, offset, count, digest, buffer)
            offset += count
            moved(count)
        hashing.result()
    return offset


def _copy_range(source: io.FileIO, target: io.FileIO) -> int:
    """The number of bytes; 0 at the end, or where the kernel does not do it."""
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), _RANGE_BYTES)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return 0
        raise


def _hash_range(file: io.FileIO, offset: int, count: int, digest: Any, buffer: memoryview) -> None:
    while count:
        found = os.preadv(file.fileno(), [buffer[:count]], offset)
        if not found:
            raise OSError(errno.EIO, "the file was cut off while it was written")
        digest.update(buffer[:found])
        offset, count = offset + found, count - found


def _write_back(fileno: Callable[[], int], offset: int, count: int) -> None:
    """Has the disk begin to write, and memory let go of what it has written.

    A copy that went on taking new memory would push out what others read, and on a virtual machine
    waits longer for it than for the disk.
    """
    os.posix_fadvise(fileno(), offset, count, os.POSIX_FADV_DONTNEED)
    if offset >= _BEHIND_BYTES:
        os.posix_fadvise(fileno(), offset - _BEHIND_BYTES, count, os.POSIX_FADV_DONTNEED)


def _let_go_of_read(fileno: Callable[[], int], offset: int, count: int) -> None:
    """Has memory let go of what was read; asking for what is next would wait for it."""
    if not offset:
        os.posix_fadvise(fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    os.posix_fadvise(fileno(), offset, count, os.POSIX_FADV_DONTNEED)


def _ignore(*_: object) -> None:
    """For whoever keeps in memory what it writes, and for what has not begun."""


def _copy(
    source: io.FileIO | io.BytesIO,
    target: io.FileIO,
    digest: Any,
    advise: Callable[[int, int], None],
    moved: Callable[[int], None],
) -> int:
    buffers = [memoryview(bytearray(_CHUNK_BYTES))]
    count = source.readinto(buffers[0])
    if count < _CHUNK_BYTES:
        size_bytes = _copy_small(source, target, digest, buffers[0], count)
        moved(size_bytes)
        return size_bytes
    buffers.append(memoryview(bytearray(_CHUNK_BYTES)))
    size_bytes = chunks = 0
    with ThreadPoolExecutor(1, "hash") as hasher:
        while count:
            piece = buffers[chunks % 2][:count]
            hashing = hasher.submit(digest.update, piece)
            write_all(target, piece)
            advise(size_bytes, count)
            size_bytes, chunks = size_bytes + count, chunks + 1
            moved(count)
            count = source.readinto(buffers[chunks % 2])
            hashing.result()
    return size_bytes


def _copy_small(
    source: io.FileIO | io.BytesIO, target: io.FileIO, digest: Any, buffer: memoryview, count: int
) -> int:
    """Copies what is less than a buffer, of which the first bytes are read."""
    size_bytes = 0
    while count:
        digest.update(buffer[:count])
        write_all(target, buffer[:count])
        size_bytes += count
        count = source.readinto(buffer)
    return size_bytes


def write_all(target: io.FileIO, piece: memoryview) -> None:
    """Writes all of it to an unbuffered file, which may take less at a time."""
    while piece:
        piece = piece[target.write(piece) :]
