"""ArtifactCache: artifacts on a server's own disk, checked, within a bound.

::

    lock                    flock: shared while something is fetched, exclusive while rubbish goes
    tmp/                    what is being fetched, and what is being removed
    models/DIGEST-N-NAME/   a repository of one model with one version; flock: shared while in use

A repository is there whole or not at all. Servers may share a cache.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.store.artifacts import ArtifactDirectory
from penstock.store.failures import CorruptError, StoreError
from penstock.store.files import hash_file, os_failure
from penstock.store.layout import lay_out, place_of
from penstock.store.manifest import FileEntry, Manifest
from penstock.store.records import VersionRecord

__all__ = ["ArtifactCache", "digest_of"]


def digest_of(repository: Path, record: VersionRecord) -> str:
    """The digest of a version's files as they lie in a repository.

    Raises:
        CorruptError: one is missing.
    """
    found = []
    for entry in record.files:
        path = repository / record.model / place_of(entry.path, record.version)
        if not path.is_file():
            raise CorruptError(f"'{entry.path}' of {record.reference} is missing")
        found.append(FileEntry(entry.path, *hash_file(path)))
    return Manifest.of(found).digest


class ArtifactCache:
    """Fetches, keeps and lets go.

    Threading: thread-safe. Blocking: every method. Ownership: locks on what is in use.
    Lifecycle: constructed -> open -> (fetch | release)* -> close.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Touches nothing yet.

        Args:
            root: of the cache.
            max_bytes: of everything in it; 0 = no bound.
        """
        self._root = root
        self._models = root / "models"
        self._temporary = root / "tmp"
        self._max_bytes = max_bytes
        self._mutex = threading.Lock()
        self._in_use: dict[str, int] = {}  # descriptors, locked

    def open(self) -> None:
        """Makes the directories, and removes what was left half-done.

        Raises:
            StoreUnavailableError: they cannot be made.
        """
        try:
            for directory in (self._models, self._temporary):
                directory.mkdir(parents=True, exist_ok=True)
            with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                for left in self._temporary.iterdir():
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise os_failure("cannot make the cache of artifacts", error) from error

    def fetch(self, record: VersionRecord, artifacts: ArtifactDirectory) -> Path:
        """A repository with the version in it, whose bytes were checked just now; in use.

        Raises:
            CorruptError: the store's bytes are not those that were pushed.
            StoreError: they cannot be read, or there is no room.
        """
        key = _key(record)
        with self._mutex:
            try:
                if self._is_whole(key, record):
                    return self._models / key
                self._make_room(record.size_bytes)
                with self._locked(fcntl.LOCK_SH):
                    self._download(key, record, artifacts)
                self._use(key)
                return self._models / key
            except OSError as error:
                raise os_failure(f"cannot fetch {record.reference}", error) from error

    def release(self, record: VersionRecord) -> None:
        """It may go, when there is no room; nothing where it is not in use."""
        with self._mutex:
            descriptor = self._in_use.pop(_key(record), None)
            if descriptor is not None:
                os.close(descriptor)

    def close(self) -> None:
        """Lets go of everything."""
        with self._mutex:
            while self._in_use:
                os.close(self._in_use.popitem()[1])

    def _is_whole(self, key: str, record: VersionRecord) -> bool:
        """Whether it is there as it was pushed; then it is in use. What is damaged goes."""
        if not self._use(key):
            return False
        try:
            if digest_of(self._models / key, record) == record.digest:
                os.utime(self._models / key)  # used now: it goes last
                return True
        except CorruptError:
            pass
        os.close(self._in_use.pop(key))
        self._remove(self._models / key)
        return False

    def _use(self, key: str) -> bool:
        if key in self._in_use:
            return True
        try:
            descriptor = os.open(self._models / key, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._in_use[key] = descriptor
        if os.path.exists(self._models / key):
            return True
        os.close(self._in_use.pop(key))  # removed by another server meanwhile
        return False

    def _download(self, key: str, record: VersionRecord, artifacts: ArtifactDirectory) -> None:
        target = self._temporary / secrets.token_hex(16)
        try:
            manifest = artifacts.manifest(record.digest)
            lay_out(manifest.files, target / record.model, record.version, artifacts.copy_out)
            with suppress(FileExistsError):
                os.rename(target, self._models / key)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def _make_room(self, needed: int) -> None:
        """Removes what was not used for longest, but for what is in use.

        Raises:
            StoreError: even then there is no room.
        """
        free = shutil.disk_usage(self._root).free
        if not self._max_bytes and needed <= free:
            return
        entries = sorted(self._models.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
        sizes = {entry: _size_of(entry) for entry in entries}
        total = sum(sizes.values())
        bound = self._max_bytes or (1 << 62)
        for entry in entries:
            if total + needed <= bound and needed <= free:
                return
            if entry.name not in self._in_use and self._evict(entry):
                total -= sizes[entry]
                free += sizes[entry]
        if total + needed > bound or needed > free:
            room = max(0, min(bound - total, free))
            raise StoreError(f"the cache has no room: {needed} bytes needed, {room} free")

    def _evict(self, entry: Path) -> bool:
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove(entry)
            return True
        except BlockingIOError:  # another server's
            return False
        finally:
            os.close(descriptor)

    def _remove(self, entry: Path) -> None:
        aside = self._temporary / secrets.token_hex(16)
        os.rename(entry, aside)
        shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)


def _key(record: VersionRecord) -> str:
    return f"{record.digest.removeprefix('sha256:')}-{record.version}-{record.model}"


def _size_of(entry: Path) -> int:
    sizes = (path.lstat().st_size for path in entry.rglob("*") if path.is_file())
    return sum(sizes)
