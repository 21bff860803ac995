r"""Large blobs in a bucket: pieces that are objects of their own, and an index that makes them one.

Grammar, of an index, in ASCII::

    index = "penstock pieces 1 " size " " piece-size "\n" (sha256 "\n")+

Each piece is checked by itself, so an upload or a download that was cut off goes on where it was,
and pieces come beside each other. Every piece is written by one request, which has an effect as a
whole or not at all; nothing is left of one that was cut off that only the bucket's owner sees.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from penstock.store.failures import CorruptError

__all__ = ["PIECE_BYTES", "Index", "in_order", "make_index", "read_index"]

T = TypeVar("T")

PIECE_BYTES = 16 << 20
AT_ONCE = 8
"""Pieces under way, each of which is in memory."""
MAX_INDEX_BYTES = 64 << 20
_HEADER = re.compile(r"penstock pieces 1 ([1-9][0-9]{0,17}) ([1-9][0-9]{0,9})")
_SHA256 = re.compile(r"[0-9a-f]{64}")

ReadAt = Callable[[int, int], bytes]
"""Bytes from an offset on, as many as asked for unless there are fewer."""


@dataclass(frozen=True, slots=True)
class Index:
    """The pieces of a blob.

    Attributes:
        size_bytes: of the blob.
        piece_bytes: of each piece but the last.
        sha256s: of the pieces, in order.
    """

    size_bytes: int
    piece_bytes: int
    sha256s: tuple[str, ...]

    @property
    def text(self) -> str:
        """As the grammar has it."""
        lines = "".join(f"{each}\n" for each in self.sha256s)
        return f"penstock pieces 1 {self.size_bytes} {self.piece_bytes}\n{lines}"

    def length(self, number: int) -> int:
        """Bytes of a piece."""
        return min(self.piece_bytes, self.size_bytes - number * self.piece_bytes)


def read_index(sha256: str, content: bytes) -> Index:
    """The index of a blob; whoever wrote it is not trusted.

    Raises:
        CorruptError: it is none.
    """
    header, *lines = content.decode("ascii", "replace").split("\n")
    match = _HEADER.fullmatch(header)
    pieces = tuple(lines[:-1])
    if match is not None:
        index = Index(int(match[1]), int(match[2]), pieces)
        is_complete = len(pieces) == -(-index.size_bytes // index.piece_bytes)
        if is_complete and lines[-1] == "" and all(map(_SHA256.fullmatch, pieces)):
            return index
    raise CorruptError(f"the index of blob {sha256} is none")


def make_index(read_at: ReadAt, size_bytes: int, piece_bytes: int) -> tuple[Index, str]:
    """The index of a blob and its SHA-256; the two are hashed beside each other."""
    whole, pieces, offset = hashlib.sha256(), [], 0
    with ThreadPoolExecutor(1, "hash") as hasher:
        while piece := read_at(offset, piece_bytes):
            hashing = hasher.submit(whole.update, piece)
            pieces.append(hashlib.sha256(piece).hexdigest())
            hashing.result()
            offset += len(piece)
            if len(piece) < piece_bytes:
                break
    return Index(offset, piece_bytes, tuple(pieces)), whole.hexdigest()


def in_order(work: Callable[[int], T], count: int) -> Iterator[T]:
    """What the work on each number gives, in their order; several are worked on at a time."""
    with ThreadPoolExecutor(min(AT_ONCE, count), "piece") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for number in range(count):
                waiting.append(pool.submit(work, number))
                if len(waiting) == AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
