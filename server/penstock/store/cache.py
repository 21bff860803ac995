"""ArtifactCache: artifacts on a server's own disk, checked, within a bound.

::

    lock                    flock: shared while something is fetched, exclusive while rubbish goes
    partial/DIGEST-N-NAME/  what is being fetched (flock: exclusive), or was until it was cut off
    tmp/                    what two servers fetch at once, and what is being removed
    models/DIGEST-N-NAME/   a repository of one model with one version; flock: shared while in use

A repository is there whole or not at all. Servers may share a cache. A fetch that was cut off goes
on where it was: what is left of it is checked, not believed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from penstock.folders import is_at, lock_now, modified_ns, size_of
from penstock.store.artifacts import Artifacts
from penstock.store.failures import CorruptError, NoRoomError, StoreUnavailableError
from penstock.store.files import hash_file, os_failure
from penstock.store.layout import lay_out, place_of
from penstock.store.manifest import FileEntry, Manifest
from penstock.store.records import VersionRecord

__all__ = ["ArtifactCache", "digest_of"]

_KEPT_S = 7 * 86400
"""What was cut off is there to be gone on with."""
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


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

    Threading: thread-safe; versions are fetched beside each other. Blocking: open and fetch;
    release and close do not wait for a fetch, which ends after a piece once it is closed.
    Ownership: locks on what is in use.
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
        self._partial = root / "partial"
        self._temporary = root / "tmp"
        self._max_bytes = max_bytes
        self._mutex = threading.Lock()  # of what follows; never held while bytes are read
        self._in_use: dict[str, int] = {}  # descriptors, locked
        self._coming: dict[str, int] = {}  # sizes of what is being fetched
        self._is_closed = False
        self._keys: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._room = threading.Lock()  # one at a time counts and removes

    def open(self) -> None:
        """Makes the directories, and removes what was left half-done and is not gone on with.

        Raises:
            StoreUnavailableError: they cannot be made.
        """
        try:
            for directory in (self._models, self._partial, self._temporary):
                directory.mkdir(parents=True, exist_ok=True)
            with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                for left in [*self._temporary.iterdir(), *self._forgotten()]:
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise os_failure("cannot make the cache of artifacts", error) from error

    def fetch(self, record: VersionRecord, artifacts: Artifacts) -> Path:
        """A repository with the version in it, whose bytes were checked just now; in use.

        Raises:
            CorruptError: the store's bytes are not those that were pushed.
            NoRoomError: there is no room for them.
            StoreError: they cannot be read, or the cache is closed.
        """
        key = _key(record)
        with self._mutex:
            key_lock = self._keys[key]
        with key_lock:
            try:
                is_there = self._is_whole(key, record)
                while not is_there:  # again where another server removed it at once
                    with self._room_for(key, record.size_bytes), self._locked(fcntl.LOCK_SH):
                        self._download(key, record, artifacts)
                    is_there = self._use(key)
                return self._models / key
            except OSError as error:
                raise os_failure(f"cannot fetch {record.reference}", error) from error

    def release(self, record: VersionRecord) -> None:
        """It may go, when there is no room; nothing where it is not in use."""
        self._let_go(_key(record))

    def close(self) -> None:
        """Lets go of everything; nothing is taken into use after that."""
        with self._mutex:
            self._is_closed = True
            while self._in_use:
                os.close(self._in_use.popitem()[1])

    def _check_open(self, _moved_bytes: int) -> None:
        """Ends a download whose end nobody waits for; the next goes on with what is there."""
        if self._is_closed:
            raise StoreUnavailableError("the cache of artifacts is closed")

    def _is_whole(self, key: str, record: VersionRecord) -> bool:
        """Whether it is there as it was pushed; then it is in use. What is damaged goes."""
        with self._mutex:
            is_serving = key in self._in_use  # and may have written files of its own
        if not self._use(key):
            return False
        try:
            if not is_serving:
                _check_no_others(self._models / key, record)
            if digest_of(self._models / key, record) == record.digest:
                os.utime(self._models / key)  # used now: it goes last
                return True
        except CorruptError:
            pass
        with self._mutex:
            descriptor = self._in_use.pop(key, None)
        if descriptor is not None:
            try:
                self._remove(self._models / key, descriptor)
            finally:
                os.close(descriptor)
        return False

    def _let_go(self, key: str) -> None:
        with self._mutex:
            descriptor = self._in_use.pop(key, None)
            if descriptor is not None:
                os.close(descriptor)

    def _use(self, key: str) -> bool:
        """Whether it is there; then it is in use. Only with the key's lock."""
        with self._mutex:
            if self._is_closed:
                raise StoreUnavailableError("the cache of artifacts is closed")
            if key in self._in_use:
                return True
        try:
            descriptor = os.open(self._models / key, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with self._mutex:
            is_current = is_at(descriptor, self._models / key)
            if is_current and not self._is_closed:
                self._in_use[key] = descriptor
                return True
        os.close(descriptor)  # removed by another server meanwhile
        return self._use(key) if is_current else False

    def _forgotten(self) -> list[Path]:
        """What was cut off, and nobody has gone on with for a week."""
        oldest_ns = time.time_ns() - _KEPT_S * 1_000_000_000
        return [left for left in self._partial.iterdir() if modified_ns(left) < oldest_ns]

    def _download(self, key: str, record: VersionRecord, artifacts: Artifacts) -> None:
        with self._place_for(key) as target:
            try:
                manifest = artifacts.manifest(record.digest)
                place = target / record.model
                copy = partial(artifacts.copy_out, moved=self._check_open)
                lay_out(manifest.files, place, record.version, copy)
                _check_no_others(target, record)
                os.utime(target)
                os.rename(target, self._models / key)
            except StoreUnavailableError:
                raise  # it goes on when the store is there again
            except BaseException as error:
                shutil.rmtree(target, ignore_errors=True)
                is_there = isinstance(error, OSError) and error.errno in _TAKEN
                if not is_there:  # else another server was faster
                    raise

    @contextmanager
    def _place_for(self, key: str) -> Iterator[Path]:
        """A directory to fetch to, with what is left of an earlier try unless it is in use."""
        target = self._partial / key
        descriptor = _made(target)
        try:
            if lock_now(descriptor) and is_at(descriptor, target):
                yield target
                return
            aside = self._temporary / secrets.token_hex(16)  # others use or have removed it
            try:
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        finally:
            os.close(descriptor)

    @contextmanager
    def _room_for(self, key: str, size_bytes: int) -> Iterator[None]:
        """Room that nobody else is given while it is filled."""
        with self._room:
            self._coming[key] = size_bytes
            try:
                self._make_room(sum(self._coming.values()))
            except BaseException:
                del self._coming[key]
                raise
        try:
            yield
        finally:
            with self._room:
                del self._coming[key]

    def _make_room(self, needed: int) -> None:
        """Removes what was not used for longest, but for what is in use.

        Raises:
            NoRoomError: even then there is no room.
        """
        begun = sum(size_of(self._partial / key) for key in self._coming)  # in `needed` as well
        free = shutil.disk_usage(self._root).free + begun
        if not self._max_bytes and needed <= free:
            return
        left = [each for each in self._partial.iterdir() if each.name not in self._coming]
        entries = sorted([*self._models.iterdir(), *left], key=modified_ns)
        sizes = {entry: size_of(entry) for entry in entries}
        total = sum(sizes.values())
        bound = self._max_bytes or (1 << 62)
        for entry in entries:
            if total + needed <= bound and needed <= free:
                return
            if self._evict(entry):
                total -= sizes[entry]
                free += sizes[entry]
        if total + needed > bound or needed > free:
            room = max(0, min(bound - total, free))
            raise NoRoomError(f"the cache has no room: {needed} bytes needed, {room} free")

    def _evict(self, entry: Path) -> bool:
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            if not lock_now(descriptor) or not is_at(descriptor, entry):  # another server's
                return False
            self._remove(entry, descriptor)
            return True
        finally:
            os.close(descriptor)

    def _remove(self, entry: Path, descriptor: int) -> None:
        """Removes what is open, unless another server was faster, whose new one stays."""
        aside = self._temporary / secrets.token_hex(16)
        try:
            os.rename(entry, aside)
        except FileNotFoundError:
            return
        if is_at(descriptor, aside):
            shutil.rmtree(aside, ignore_errors=True)
            return
        try:
            os.rename(aside, entry)
        except OSError:  # there is a third one by now
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


def _check_no_others(repository: Path, record: VersionRecord) -> None:
    """Raises CorruptError where there are files that nobody pushed, which a model might read."""
    others = {path.relative_to(repository) for path in repository.rglob("*") if not path.is_dir()}
    others -= {Path(record.model, place_of(each.path, record.version)) for each in record.files}
    if others:
        raise CorruptError(f"'{min(others)}' is not of {record.reference}")


def _made(directory: Path) -> int:
    """The directory, open; made where it is not there, as often as another server moves it."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(directory)
        with suppress(FileNotFoundError):
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
