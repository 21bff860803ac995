"""ArtifactDirectory: bytes by their digests, in a directory.

::

    lock                        flock: shared by whoever adds, exclusive for whoever cleans
    tmp/                        files being written; whatever is in it when nobody adds is rubbish
    blobs/ab/abcdef...          contents, named by their SHA-256
    quarantine/abcdef...        contents that were found not to be what their name says
    store-id                    of the store that the bytes belong to: no other cleans here

A blob is written under `tmp`, flushed, renamed, and its directory flushed: it is there whole and
durable, or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path

from sqlalchemy import Connection

from penstock.store.artifacts import (
    Artifacts,
    Confirm,
    Moved,
    check_content,
    check_entry,
    ignore,
)
from penstock.store.copying import copy_file, copy_hashed
from penstock.store.failures import CorruptError, RefusedError, StoreUnavailableError
from penstock.store.files import (
    SourceFile,
    hash_file,
    make_directories,
    open_source,
    os_failure,
    sync_directory,
)
from penstock.store.manifest import FileEntry

__all__ = ["ArtifactDirectory"]

_LINK_BYTES = 16 << 20


class ArtifactDirectory(Artifacts):
    """Artifacts in a directory; what is promised is `Artifacts`'.

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
        self._made: set[str] = set()  # what was not there before

    @property
    def shown(self) -> str:
        """The directory."""
        return str(self.root)

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
        """As `Artifacts.claim`."""
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
        """As `Artifacts.check_there`; what is not there may be a file system not mounted."""
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
    def adding(self) -> Iterator[Confirm]:
        """As `Artifacts.adding`; what an earlier process left is cleaned away first."""
        self.clean()
        with self._locked(fcntl.LOCK_SH):
            yield _confirm

    def clean(
        self,
        is_wanted: Callable[[str], bool] | None = None,
        *,
        min_age_s: float = 0,
        only: Collection[str] | None = None,
    ) -> list[str]:
        """As `Artifacts.clean`; files that were not written to their end go, too."""
        try:
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.check_there()
                for left in self._temporary.iterdir():
                    _remove(left)
                if is_wanted is None:
                    return []
                names = set(self.names()) if only is None else set(only)
                unwanted = sorted(
                    name
                    for name in names
                    if not is_wanted(name) and self._is_older(name, min_age_s)
                )
                self._made.difference_update(unwanted)
                for name in unwanted:
                    self._path(name).unlink(missing_ok=True)
                return unwanted
        except BlockingIOError:
            return []
        except OSError as error:
            raise os_failure("cannot clean the artifacts", error) from error

    @property
    def made(self) -> Collection[str]:
        """As `Artifacts.made`."""
        return frozenset(self._made)

    def names(self) -> Iterator[str]:
        """The SHA-256 of every blob."""
        for shard in sorted(self._blobs.iterdir()):
            yield from sorted(blob.name for blob in shard.iterdir())

    def add_file(self, each: SourceFile, moved: Moved = ignore) -> FileEntry:
        """As `Artifacts.add_file`."""
        temporary = self._temporary / secrets.token_hex(16)
        try:
            if isinstance(each.source, bytes):
                size_bytes, sha256 = _write(temporary, BytesIO(each.source), moved)
            else:
                with open_source(each.source) as source:
                    size_bytes, sha256 = _write(temporary, source, moved)
            self._publish(temporary, sha256)
        except OSError as error:
            raise os_failure(f"cannot store '{each.path or 'a blob'}'", error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return FileEntry(each.path, size_bytes, sha256)

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """As `Artifacts.read`."""
        content = bytearray()
        with self._open(sha256) as file:
            try:
                while len(content) <= limit_bytes and (piece := file.read(_LINK_BYTES)):
                    content += piece
            except OSError as error:
                raise os_failure(f"cannot read blob {sha256}", error) from error
        return check_content(sha256, content, limit_bytes)

    def copy_out(self, entry: FileEntry, target: Path, moved: Moved = ignore) -> None:
        """As `Artifacts.copy_out`, checked on the way."""
        if _is_whole(entry, target):
            moved(entry.size_bytes)
            return
        with self._open(entry.sha256) as source:
            try:
                target.unlink(missing_ok=True)
                with open(target, "x+b", buffering=0) as file:
                    found = copy_file(source, file, moved)
            except OSError as error:
                raise os_failure(f"cannot copy '{entry.path}'", error) from error
        check_entry(entry, found)

    def check(self, entry: FileEntry) -> None:
        """As `Artifacts.check`."""
        try:
            with self._open(entry.sha256):
                pass
            check_entry(entry, hash_file(self._path(entry.sha256)))
        except CorruptError as error:
            if self._path(entry.sha256).exists():
                raise
            aside = any(self._quarantine.glob(f"{entry.sha256}.*"))
            told = "it was damaged, and put aside in quarantine/" if aside else error
            raise CorruptError(f"'{entry.path}' is missing: {told}") from error
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                raise CorruptError(f"'{entry.path}': {error}") from error
            raise

    def quarantine(self, sha256: str, check: Callable[[], object]) -> bool:
        """As `Artifacts.quarantine`."""
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

    def link_out(self, entry: FileEntry, target: Path, *, is_private: bool = False) -> None:
        """As `Artifacts.link_out`: what is large is a second name of the blob.

        What it holds is not checked: it was, when it was added a moment ago.
        """
        if entry.size_bytes > _LINK_BYTES and not is_private:
            with suppress(OSError):
                os.link(self._path(entry.sha256), target)
                return
        self.copy_out(entry, target)

    def free_bytes(self) -> int:
        """Room that is left where artifacts are."""
        return shutil.disk_usage(self.root).free

    def _publish(self, temporary: Path, sha256: str) -> None:
        """Also over a blob that is there: that one may have been damaged since."""
        target = self._path(sha256)
        if not target.exists():
            self._made.add(sha256)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_directory(self._blobs)
        os.replace(temporary, target)
        sync_directory(target.parent)

    def _is_older(self, sha256: str, age_s: float) -> bool:
        try:
            return self._path(sha256).stat().st_mtime <= time.time() - age_s
        except FileNotFoundError:
            return False

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


def _write(path: Path, source: FileIO | BytesIO, moved: Moved) -> tuple[int, str]:
    with open(path, "xb", buffering=0) as target:
        os.fchmod(target.fileno(), 0o444)
        return copy_hashed(source, target, is_durable=True, moved=moved)


def _is_whole(entry: FileEntry, target: Path) -> bool:
    """Whether an earlier try brought it there to its end."""
    try:
        is_all_there = target.lstat().st_size == entry.size_bytes
    except FileNotFoundError:
        return False
    return is_all_there and hash_file(target)[1] == entry.sha256


def _confirm(_: Connection) -> None:
    """The lock of a directory lasts as long as its holder: there is nothing to ask."""
