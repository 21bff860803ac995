"""ArtifactObjects: bytes by their digests, in a bucket.

::

    store-id                    of the store that the bytes belong to: no other cleans here
    blobs/ab/abcdef...          contents of up to one piece, named by their SHA-256
    indexes/ab/abcdef...        of larger contents, named by the SHA-256 of the whole
    pieces/abcdef.../0-123...   their pieces: number, and SHA-256
    quarantine/abcdef.1a2b.../  whatever there was of a content that is not what its name says

What is large is seen once its index is there, which comes last. Pieces without one are what a push
left that was killed: the next push of the same content goes on with them, `clean` removes them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.store.adding_lock import AddingLock
from penstock.store.artifacts import (
    Artifacts,
    Confirm,
    Moved,
    check_content,
    check_entry,
    ignore,
)
from penstock.store.bucket import Bucket
from penstock.store.copying import copy_hashed
from penstock.store.failures import CorruptError, RefusedError, StoreUnavailableError
from penstock.store.files import SourceFile, open_source, os_failure
from penstock.store.manifest import FileEntry
from penstock.store.pieces import (
    MAX_INDEX_BYTES,
    PIECE_BYTES,
    Index,
    ReadAt,
    in_order,
    make_index,
    read_index,
)

__all__ = ["ArtifactObjects"]

_ID = "store-id"
_MAX_ID_BYTES = 1024


class ArtifactObjects(Artifacts):
    """Artifacts in a bucket; what is promised is `Artifacts`'.

    Threading: thread-safe, and safe among processes that use the same database.
    Blocking: every method. Cost: an upload or download holds 8 pieces of 16 MiB in memory.
    """

    def __init__(
        self, bucket: Bucket, owner: str, lock: AddingLock, piece_bytes: int = PIECE_BYTES
    ) -> None:
        """Asks for nothing yet.

        Args:
            bucket: where they are.
            owner: the id of the store whose bytes are there.
            lock: between pushes and cleaning.
            piece_bytes: that a blob is cut into, at most PIECE_BYTES; others are read as well.
        """
        self._bucket = bucket
        self._owner = owner
        self._lock = lock
        self._piece_bytes = piece_bytes
        self._mutex = threading.Lock()  # of what follows
        self._sources: dict[str, Path | bytes] = {}  # of what is being added, by SHA-256
        self._made: set[str] = set()  # what was not there before, by SHA-256
        self._adding = 0

    @property
    def shown(self) -> str:
        """The URL, without its query."""
        return self._bucket.shown

    def claim(self) -> None:
        """As `Artifacts.claim`: whoever writes the id first owns the place."""
        self._bucket.put(_ID, f"{self._owner}\n".encode(), only_new=True)
        self.check_there()

    def check_there(self) -> None:
        """As `Artifacts.check_there`."""
        found = self._bucket.get(_ID, _MAX_ID_BYTES)
        if found is None:
            raise StoreUnavailableError(f"the artifacts are not in '{self.shown}'")
        if found.decode(errors="replace").strip() != self._owner:
            raise RefusedError(f"the artifacts in '{self.shown}' are those of another store")

    @contextmanager
    def adding(self) -> Iterator[Confirm]:
        """As `Artifacts.adding`; pieces that an earlier process left are used again."""
        with self._lock.shared() as confirm:
            self.check_there()
            with self._mutex:
                self._adding += 1
            try:
                yield confirm
            finally:
                with self._mutex:
                    self._adding -= 1
                    if not self._adding:
                        self._sources.clear()

    def clean(
        self,
        is_wanted: Callable[[str], bool] | None = None,
        *,
        min_age_s: float = 0,
        only: Collection[str] | None = None,
    ) -> list[str]:
        """As `Artifacts.clean`; pieces without an index go, too."""
        if is_wanted is None:
            return []
        with self._lock.exclusive(waits=False) as is_had:
            if not is_had:
                return []
            self.check_there()
            folders = ("blobs", "indexes")
            names = {_name(key) for each in folders for key in self._bucket.older(each, min_age_s)}
            names &= names if only is None else set(only)
            unwanted = {name for name in names if not is_wanted(name)}
            with self._mutex:
                self._made -= unwanted
            # What makes a content seen goes first.
            seen = [key for name in unwanted for key in (_blob(name), _index(name))]
            self._bucket.remove(seen)
            indexed = {_name(key) for key, _ in self._bucket.list("indexes")}
            pieces = ((key, key.split("/")[1]) for key in self._bucket.older("pieces", min_age_s))
            left = {key: name for key, name in pieces if name not in indexed}
            self._bucket.remove([k for k, n in left.items() if n in unwanted or only is None])
            return sorted(unwanted)

    @property
    def made(self) -> Collection[str]:
        """As `Artifacts.made`."""
        with self._mutex:
            return frozenset(self._made)

    def names(self) -> Iterator[str]:
        """As `Artifacts.names`."""
        for folder in ("blobs", "indexes"):
            for key, _ in self._bucket.list(folder):
                yield _name(key)

    def add_file(self, each: SourceFile, moved: Moved = ignore) -> FileEntry:
        """As `Artifacts.add_file`."""
        try:
            if isinstance(each.source, bytes):
                entry = self._add(each, len(each.source), _reader(each.source), moved)
            else:
                with open_source(each.source) as file:
                    size_bytes = os.fstat(file.fileno()).st_size
                    entry = self._add(each, size_bytes, _file_reader(file.fileno()), moved)
        except OSError as error:
            raise os_failure(f"cannot read '{each.path or 'a blob'}'", error) from error
        with self._mutex:
            self._sources[entry.sha256] = each.source
        return entry

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """As `Artifacts.read`."""
        content = self._bucket.get(_blob(sha256), limit_bytes)
        if content is None:
            index = self._index(sha256)
            if index.size_bytes > limit_bytes:
                raise CorruptError(f"blob {sha256} has more than {limit_bytes} bytes")
            content = b"".join(self._pieces(sha256, index))
        return check_content(sha256, content, limit_bytes)

    def copy_out(self, entry: FileEntry, target: Path, moved: Moved = ignore) -> None:
        """As `Artifacts.copy_out`: pieces that are at the target already are not asked for."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(target, flags, 0o666)
            try:
                left_bytes = os.fstat(descriptor).st_size
                os.ftruncate(descriptor, entry.size_bytes)
                if entry.size_bytes:
                    os.posix_fallocate(descriptor, 0, entry.size_bytes)  # a full disk says so now
                self._fill(descriptor, entry, left_bytes, moved)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise os_failure(f"cannot copy '{entry.path}'", error) from error

    def check(self, entry: FileEntry) -> None:
        """As `Artifacts.check`."""
        digest, size_bytes = hashlib.sha256(), 0
        try:
            for piece in self._content(entry):
                digest.update(piece)
                size_bytes += len(piece)
        except CorruptError as error:
            raise CorruptError(f"'{entry.path}': {error}") from error
        check_entry(entry, (size_bytes, digest.hexdigest()))

    def quarantine(self, sha256: str, check: Callable[[], object]) -> bool:
        """As `Artifacts.quarantine`."""
        with self._lock.exclusive(waits=True):
            try:
                check()
                return False
            except CorruptError:
                pass
            aside = f"quarantine/{sha256}.{secrets.token_hex(4)}"
            for key, to in ((_blob(sha256), "blob"), (_index(sha256), "index")):
                self._bucket.move(key, f"{aside}/{to}")
            for key in [key for key, _ in self._bucket.list(f"pieces/{sha256}")]:
                self._bucket.move(key, f"{aside}/{key.rpartition('/')[2]}")
            return True

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As `Artifacts.scratch`, on this machine."""
        with tempfile.TemporaryDirectory(prefix="penstock-push-") as directory:
            yield Path(directory)

    def link_out(self, entry: FileEntry, target: Path, *, is_private: bool = False) -> None:
        """As `Artifacts.link_out`: from where it was added from, if that is still the same."""
        with self._mutex:
            source = self._sources.get(entry.sha256)
        if source is None:
            self.copy_out(entry, target)
            return
        try:
            if isinstance(source, bytes):
                target.write_bytes(source)
                return
            with open_source(source) as file, open(target, "xb", buffering=0) as copy:
                found = copy_hashed(file, copy)
        except OSError as error:
            raise os_failure(f"cannot copy '{entry.path}'", error) from error
        if found != (entry.size_bytes, entry.sha256):
            raise RefusedError(f"'{entry.path}' changed while it was stored")

    def free_bytes(self) -> None:
        """A bucket has no end."""

    def _add(self, each: SourceFile, size_bytes: int, read_at: ReadAt, moved: Moved) -> FileEntry:
        if size_bytes <= self._piece_bytes:
            content = read_at(0, self._piece_bytes)
            sha256 = hashlib.sha256(content).hexdigest()
            self._make(_blob(sha256), sha256, content)
            moved(len(content))
            return FileEntry(each.path, len(content), sha256)
        index, sha256 = make_index(read_at, size_bytes, self._piece_bytes)
        there = dict(self._bucket.list(f"pieces/{sha256}"))

        def upload(number: int) -> int:
            key = _piece(sha256, number, index)
            if there.get(key) != index.length(number):
                content = read_at(number * index.piece_bytes, index.length(number))
                if hashlib.sha256(content).hexdigest() != index.sha256s[number]:
                    raise RefusedError(f"'{each.path}' changed while it was stored")
                self._bucket.put(key, content)
            return index.length(number)

        for count in in_order(upload, len(index.sha256s)):
            moved(count)
        self._make(_index(sha256), sha256, index.text.encode())
        return FileEntry(each.path, index.size_bytes, sha256)

    def _make(self, key: str, sha256: str, content: bytes) -> None:
        """Also over what is there: that may have been damaged since."""
        is_new = not self._bucket.has(key)
        self._bucket.put(key, content)
        if is_new:
            with self._mutex:
                self._made.add(sha256)

    def _fill(self, descriptor: int, entry: FileEntry, left_bytes: int, moved: Moved) -> None:
        digest, offset = hashlib.sha256(), 0
        for piece in self._content(entry, _left_in(descriptor, left_bytes)):
            view = memoryview(piece)
            while view:
                view = view[os.pwrite(descriptor, view, offset + len(piece) - len(view)) :]
            digest.update(piece)
            offset += len(piece)
            moved(len(piece))
        check_entry(entry, (offset, digest.hexdigest()))

    def _content(self, entry: FileEntry, left: ReadAt | None = None) -> Iterator[bytes]:
        """The bytes of a file in order, never more of them than it should have."""
        if entry.size_bytes <= PIECE_BYTES:
            content = self._bucket.get(_blob(entry.sha256), entry.size_bytes)
            if content is not None:
                yield content
                return
        index = self._index(entry.sha256)
        if index.size_bytes != entry.size_bytes:
            check_entry(entry, (index.size_bytes, entry.sha256))
        yield from self._pieces(entry.sha256, index, left)

    def _pieces(self, sha256: str, index: Index, left: ReadAt | None = None) -> Iterator[bytes]:
        def get(number: int) -> bytes:
            length, wanted = index.length(number), index.sha256s[number]
            if left is not None:
                content = left(number * index.piece_bytes, length)
                if hashlib.sha256(content).hexdigest() == wanted:
                    return content
            found = self._bucket.get(_piece(sha256, number, index), length)
            if found is None:
                self.check_there()
                raise CorruptError(f"piece {number} of blob {sha256} is missing")
            if hashlib.sha256(found).hexdigest() != wanted:
                raise CorruptError(f"piece {number} of blob {sha256} is not what its name says")
            return found

        return in_order(get, len(index.sha256s))

    def _index(self, sha256: str) -> Index:
        content = self._bucket.get(_index(sha256), MAX_INDEX_BYTES)
        if content is None:
            self.check_there()  # else nothing can be said of a single blob
            raise CorruptError(f"there is no blob {sha256}")
        return read_index(sha256, content)


def _blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _index(sha256: str) -> str:
    return f"indexes/{sha256[:2]}/{sha256}"


def _piece(sha256: str, number: int, index: Index) -> str:
    return f"pieces/{sha256}/{number}-{index.sha256s[number]}"


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _reader(content: bytes) -> ReadAt:
    return lambda offset, length: content[offset : offset + length]


def _file_reader(descriptor: int) -> ReadAt:
    def read(offset: int, length: int) -> bytes:
        parts = []
        while length and (part := os.pread(descriptor, length, offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return read


def _left_in(descriptor: int, left_bytes: int) -> ReadAt:
    read = _file_reader(descriptor)
    return lambda offset, length: read(offset, length) if offset < left_bytes else b""
