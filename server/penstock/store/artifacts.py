"""Artifacts: what a place for bytes can do, be it a directory or a bucket.

An artifact is the blob of its manifest and the blobs of its files; a blob is named by the SHA-256
of its content. It is there whole and durable, or nobody can see it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from sqlalchemy import Connection

from penstock.store.failures import CorruptError
from penstock.store.files import SourceFile
from penstock.store.manifest import FileEntry, Manifest, read_manifest

__all__ = [
    "Artifacts",
    "Confirm",
    "Moved",
    "Watch",
    "check_content",
    "check_entry",
    "ignore",
    "unwatched",
]

Moved = Callable[[int], None]
"""Told of bytes that were just brought somewhere; from any thread, one at a time."""
Confirm = Callable[[Connection], None]
"""Called in the transaction that names what was added, last."""

Watch = Callable[[str, int], AbstractContextManager[Moved]]
"""While it lasts bytes of something are moved: its name, and how many there are."""

MAX_MANIFEST_BYTES = 16 << 20


def ignore(_: int) -> None:
    """For whoever does not ask how many bytes were moved."""


def unwatched(_name: str, _size_bytes: int) -> AbstractContextManager[Moved]:
    """For whoever does not look."""
    return nullcontext(ignore)


class Artifacts(ABC):
    """Adds, checks, copies out and removes blobs.

    Threading: thread-safe, and safe among processes.
    Blocking: every method.
    """

    @property
    @abstractmethod
    def shown(self) -> str:
        """Where they are, for people."""

    @abstractmethod
    def claim(self) -> None:
        """Makes the place its owner's. Killed at any point, the same owner can do it again.

        Raises:
            RefusedError: it is another store's.
            StoreUnavailableError: it cannot be written.
        """

    @abstractmethod
    def check_there(self) -> None:
        """Sees to it that the place is there, and its owner's.

        Raises:
            RefusedError: it is another store's.
            StoreUnavailableError: it is not there.
        """

    @abstractmethod
    def adding(self) -> AbstractContextManager[Confirm]:
        """While it lasts nothing is cleaned away.

        Every `add` happens in one, up to the commit of the row that names the blobs. What it gives
        is called in that transaction: it raises where others may have cleaned all the same.
        """

    @abstractmethod
    def clean(
        self,
        is_wanted: Callable[[str], bool] | None = None,
        *,
        min_age_s: float = 0,
        only: Collection[str] | None = None,
    ) -> list[str]:
        """Removes what nobody needs, unless somebody is adding just now.

        Args:
            is_wanted: of the SHA-256 of a blob; None: blobs are left alone.
            min_age_s: what was written since is left alone.
            only: the SHA-256 of what may go at all; None: everything.

        Returns:
            The SHA-256 of the blobs that were removed.
        """

    @property
    @abstractmethod
    def made(self) -> Collection[str]:
        """The SHA-256 of what this object added that was not there before.

        No other database knows of that; of others' bytes one may, of which ours is a copy.
        """

    @abstractmethod
    def names(self) -> Iterator[str]:
        """The SHA-256 of every blob."""

    @abstractmethod
    def add_file(self, each: SourceFile, moved: Moved = ignore) -> FileEntry:
        """Takes one file; it is durable when this returns. Raises as `add` does."""

    @abstractmethod
    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """A blob that is small, checked.

        Raises:
            CorruptError: it is missing, too large, or not what its name says.
            StoreUnavailableError: it cannot be read.
        """

    @abstractmethod
    def copy_out(self, entry: FileEntry, target: Path, moved: Moved = ignore) -> None:
        """Copies a file of an artifact, checked; it is flushed by whoever needs that.

        What an earlier try left at the target is used as far as it is right.

        Raises:
            CorruptError: it is missing, or its size or contents are not the entry's.
            StoreUnavailableError: it cannot be read, or the target not be written.
        """

    @abstractmethod
    def check(self, entry: FileEntry) -> None:
        """Hashes a blob. Raises as `copy_out` does; a part of the disk that fails is its fault."""

    @abstractmethod
    def quarantine(self, sha256: str, check: Callable[[], object]) -> bool:
        """Puts a blob aside, so that nobody gets it any more, while nobody adds one.

        Args:
            sha256: of the blob.
            check: raises CorruptError where it is still damaged: a push may have healed it.

        Returns:
            Whether it was damaged.
        """

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """An empty directory, gone at the end. Only within `adding`."""

    @abstractmethod
    def link_out(self, entry: FileEntry, target: Path, *, is_private: bool = False) -> None:
        """As `copy_out`, of what was added a moment ago; only who has it private may write."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room that is left where artifacts are; None: there is no end of it."""

    def add(self, files: Sequence[SourceFile], moved: Moved = ignore) -> Manifest:
        """Takes an artifact; it is durable when this returns. Only within `adding`.

        Raises:
            RefusedError: a path or a file is not allowed.
            StoreUnavailableError: a file cannot be read, or cannot be written here.
        """
        manifest = Manifest.of([self.add_file(each, moved) for each in files])
        self.add_bytes(manifest.text.encode())
        return manifest

    def add_bytes(self, content: bytes) -> str:
        """Takes one blob; returns its SHA-256. Only within `adding`."""
        return self.add_file(SourceFile("", content)).sha256

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artifact.

        Raises:
            CorruptError: it is missing, or not what its digest says.
        """
        text = self.read(digest.removeprefix("sha256:"), MAX_MANIFEST_BYTES)
        manifest = read_manifest(text.decode(errors="replace"))
        if manifest.digest != digest:
            raise CorruptError(f"the manifest of {digest} has the digest {manifest.digest}")
        return manifest


def check_content(sha256: str, content: bytes | bytearray, limit_bytes: int) -> bytes:
    """The content of a small blob, if it is what its name says.

    Raises:
        CorruptError: it is not, or it is larger than it may be.
    """
    if len(content) > limit_bytes:
        raise CorruptError(f"blob {sha256} has more than {limit_bytes} bytes")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptError(f"blob {sha256} has the SHA-256 {found}")
    return bytes(content)


def check_entry(entry: FileEntry, found: tuple[int, str]) -> None:
    """Raises CorruptError unless size and SHA-256 are the entry's."""
    expected = (entry.size_bytes, entry.sha256)
    if found != expected:
        raise CorruptError(
            f"'{entry.path}': expected {expected[0]} bytes with SHA-256 {expected[1]}, "
            f"got {found[0]} with {found[1]}"
        )
