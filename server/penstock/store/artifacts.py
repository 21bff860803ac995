"""ArtifactDirectory: bytes by their digests, in a directory.

::

    lock                        flock: shared by whoever adds, exclusive for whoever cleans
    tmp/                        files being written; whatever is in it when nobody adds is rubbish
    blobs/ab/abcdef...          contents, named by their SHA-256
    quarantine/abcdef...        contents that were found not to be what their name says
    store-id                    of the store that the bytes belong to: no other cleans here

An artifact is the blob of its manifest and the blobs of its files. A blob is written under `tmp`,
flushed, renamed, and its directory flushed: it is there whole and durable, or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path

from penstock.store.failures import CorruptError, RefusedError, StoreUnavailableError
from penstock.store.files import (
    SourceFile,
    copy_hashed,
    hash_file,
    make_directories,
    open_source,
    os_failure,
    sync_directory,
)
from penstock.store.manifest import FileEntry, Manifest, read_manifest

__all__ = ["ArtifactDirectory"]

_MAX_MANIFEST_BYTES = 16 << 20
_LINK_BYTES = 16 << 20


class ArtifactDirectory:
    """Adds, checks, copies out and removes blobs.

    Threading: thread-safe, and safe among processes that see the same locks.
    Blocking: every method.
    """

    def __init__(self, root: Path, owner: str = "") -> None:
        """Touches nothing yet.

        Args:
            root: of the directory.
            owner: the id of the store whose bytes are there; "" = it is not looked at.
        """
        self.root = root
        self.owner = owner
        self._id = root / "store-id"
        self._blobs = root / "blobs"
        self._temporary = root / "tmp"
        self._quarantine = root / "quarantine"

    def create(self) -> None:
        """Makes the directories, if they are not there.

        Raises:
            StoreUnavailableError: they cannot be made.
        """
        try:
            for directory in (self._blobs, self._temporary, self._quarantine):
                make_directories(directory)
            sync_directory(self.root)
        except OSError as error:
            raise os_failure("cannot make the directory of artifacts", error) from error

    def claim(self) -> None:
        """Makes the directory its owner's. Killed at any point, the same owner can do it again.

        Raises:
            RefusedError: it is another store's.
            StoreUnavailableError: it cannot be written.
        """
        self.create()
        mine = self.root / f"store-id.{self.owner}"
        try:
            mine.unlink(missing_ok=True)
            with open(mine, "xb", buffering=0) as file:
                file.write(f"{self.owner}\n".encode())
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # whoever links first owns it
                os.link(mine, self._id)
            mine.unlink()
            sync_directory(self.root)
        except OSError as error:
            raise os_failure("cannot claim the directory of artifacts", error) from error
        self.check_there()

    def check_there(self) -> None:
        """Sees to it that the directory is there, and its owner's.

        Raises:
            RefusedError: it is another store's.
            StoreUnavailableError: it is not there, as when a file system is not mounted.
        """
        try:
            found = self._id.read_text(errors="replace").strip() if self.owner else ""
            is_there = self._blobs.is_dir()
        except FileNotFoundError:
            is_there = False
        except OSError as error:
            raise os_failure("cannot read the directory of artifacts", error) from error
        if not is_there:
            raise StoreUnavailableError(
                f"the artifacts are not in '{self.root}': is its file system mounted?"
            )
        if found != self.owner:
            raise RefusedError(f"the artifacts in '{self.root}' are those of another store")

    @contextmanager
    def adding(self) -> Iterator[None]:
        """While it lasts nothing is cleaned away; what an earlier process left is, first.

        Every `add` happens in one, up to the commit of the row that names the blobs.
        """
        self.clean()
        with self._locked(fcntl.LOCK_SH):
            yield

    def clean(self, is_wanted: Callable[[str], bool] | None = None) -> list[str]:
        """Removes what nobody needs, unless somebody is adding just now.

        Args:
            is_wanted: of the SHA-256 of a blob; None: blobs are left alone.

        Returns:
            The SHA-256 of the blobs that were removed.
        """
        try:
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.check_there()
                for left in self._temporary.iterdir():
                    _remove(left)
                if is_wanted is None:
                    return []
                unwanted = [name for name in self.names() if not is_wanted(name)]
                for name in unwanted:
                    self._path(name).unlink(missing_ok=True)
                return unwanted
        except BlockingIOError:
            return []
        except OSError as error:
            raise os_failure("cannot clean the artifacts", error) from error

    def names(self) -> Iterator[str]:
        """The SHA-256 of every blob."""
        for shard in sorted(self._blobs.iterdir()):
            yield from sorted(blob.name for blob in shard.iterdir())

    def add(self, files: Sequence[SourceFile]) -> Manifest:
        """Takes an artifact; it is durable when this returns. Only within `adding`.

        Raises:
            RefusedError: a path or a file is not allowed.
            StoreUnavailableError: a file cannot be read, or cannot be written here.
        """
        manifest = Manifest.of([self._add(each) for each in files])
        self.add_bytes(manifest.text.encode())
        return manifest

    def add_bytes(self, content: bytes) -> str:
        """Takes one blob; returns its SHA-256. Only within `adding`."""
        return self._add(SourceFile("", content)).sha256

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artifact.

        Raises:
            CorruptError: it is missing, or not what its digest says.
        """
        text = self.read(digest.removeprefix("sha256:"), _MAX_MANIFEST_BYTES)
        manifest = read_manifest(text.decode(errors="replace"))
        if manifest.digest != digest:
            raise CorruptError(f"the manifest of {digest} has the digest {manifest.digest}")
        return manifest

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """A blob that is small, checked.

        Raises:
            CorruptError: it is missing, too large, or not what its name says.
            StoreUnavailableError: it cannot be read.
        """
        content = bytearray()
        with self._open(sha256) as file:
            try:
                while len(content) <= limit_bytes and (piece := file.read(_LINK_BYTES)):
                    content += piece
            except OSError as error:
                raise os_failure(f"cannot read blob {sha256}", error) from error
        if len(content) > limit_bytes:
            raise CorruptError(f"blob {sha256} has more than {limit_bytes} bytes")
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise CorruptError(f"blob {sha256} has the SHA-256 {found}")
        return bytes(content)

    def copy_out(self, entry: FileEntry, target: Path) -> None:
        """Copies a file of an artifact, checked on the way; it is flushed by whoever needs that.

        Raises:
            CorruptError: it is missing, or its size or contents are not the entry's.
            StoreUnavailableError: it cannot be read, or the target not be written.
        """
        with self._open(entry.sha256) as source:
            try:
                with open(target, "xb", buffering=0) as file:
                    found = copy_hashed(source, file)
            except OSError as error:
                raise os_failure(f"cannot copy '{entry.path}'", error) from error
        _check(entry, found)

    def check(self, entry: FileEntry) -> None:
        """Hashes a blob. Raises as `copy_out` does; a part of the disk that fails is its fault."""
        try:
            with self._open(entry.sha256):
                pass
            _check(entry, hash_file(self._path(entry.sha256)))
        except CorruptError as error:
            if self._path(entry.sha256).exists():
                raise
            raise CorruptError(f"'{entry.path}' is missing: {error}") from error
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                raise CorruptError(f"'{entry.path}': {error}") from error
            raise

    def quarantine(self, sha256: str, check: Callable[[], object]) -> bool:
        """Puts a blob aside, so that nobody gets it any more, while nobody adds one.

        Args:
            sha256: of the blob.
            check: raises CorruptError where it is still damaged: a push may have healed it.

        Returns:
            Whether it was damaged.
        """
        with self._locked(fcntl.LOCK_EX):
            try:
                check()
                return False
            except CorruptError:
                pass
            aside = self._quarantine / f"{sha256}.{secrets.token_hex(4)}"
            try:
                self._quarantine.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):
                    os.replace(self._path(sha256), aside)
                return True
            except OSError as error:
                raise os_failure("cannot put a blob aside", error) from error

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory beside the blobs, gone at the end. Only within `adding`."""
        directory = self._temporary / secrets.token_hex(16)
        directory.mkdir()
        try:
            yield directory
        finally:
            _remove(directory)

    def link_out(self, entry: FileEntry, target: Path) -> None:
        """As `copy_out`, for somebody who only reads: what is large is a second name of the blob.

        What it holds is not checked: it was, when it was added a moment ago.
        """
        if entry.size_bytes > _LINK_BYTES:
            with suppress(OSError):
                os.link(self._path(entry.sha256), target)
                return
        self.copy_out(entry, target)

    def free_bytes(self) -> int:
        """Room that is left where artifacts are."""
        return shutil.disk_usage(self.root).free

    def _add(self, each: SourceFile) -> FileEntry:
        temporary = self._temporary / secrets.token_hex(16)
        try:
            if isinstance(each.source, bytes):
                size_bytes, sha256 = _write(temporary, BytesIO(each.source))
            else:
                with open_source(each.source) as source:
                    size_bytes, sha256 = _write(temporary, source)
            self._publish(temporary, sha256)
        except OSError as error:
            raise os_failure(f"cannot store '{each.path or 'a blob'}'", error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return FileEntry(each.path, size_bytes, sha256)

    def _publish(self, temporary: Path, sha256: str) -> None:
        """Also over a blob that is there: that one may have been damaged since."""
        target = self._path(sha256)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_directory(self._blobs)
        os.replace(temporary, target)
        sync_directory(target.parent)

    def _open(self, sha256: str) -> FileIO:
        try:
            return open_source(self._path(sha256))
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            self.check_there()  # else nothing can be said of a single blob
            raise CorruptError(f"there is no blob {sha256}") from error

    def _path(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreUnavailableError(
                f"cannot open the directory of artifacts: {(error.strerror or '').lower()}"
            ) from error
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, source: FileIO | BytesIO) -> tuple[int, str]:
    with open(path, "xb", buffering=0) as target:
        os.fchmod(target.fileno(), 0o444)
        return copy_hashed(source, target, is_durable=True)


def _check(entry: FileEntry, found: tuple[int, str]) -> None:
    expected = (entry.size_bytes, entry.sha256)
    if found != expected:
        raise CorruptError(
            f"'{entry.path}': expected {expected[0]} bytes with SHA-256 {expected[1]}, "
            f"got {found[0]} with {found[1]}"
        )
