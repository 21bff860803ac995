"""What writers write to: a file in the making, whatever it is stored in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any


class Sink:
    """A file that is being written, with its digest.

    Threading: one thread at a time.
    """

    def __init__(self, write: Callable[[Any], Any]) -> None:
        self._write = write
        self._digest = hashlib.sha256()
        self._size = 0
        self.closed = False
        self.mode = "wb"

    def write(self, data: Any) -> int:
        """Appends."""
        view = memoryview(data).cast("B")
        self._write(view)
        self._digest.update(view)
        self._size += len(view)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        """Not possible; it is here because numpy takes what cannot be read for a name."""
        raise OSError("the file is written only")

    def tell(self) -> int:
        """Bytes so far."""
        return self._size

    def discard(self) -> None:
        """What is written from now on goes nowhere: the file is given up."""
        self._write = lambda data: None

    def flush(self) -> None:
        """Nothing: `Storage.create` flushes to the disk once, at the end."""

    def close(self) -> None:
        """Nothing: the file is `Storage.create`'s."""

    def writable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is not."""
        return False

    def seekable(self) -> bool:
        """It is not."""
        return False

    def hexdigest(self) -> str:
        """SHA-256 of what was written."""
        return self._digest.hexdigest()
