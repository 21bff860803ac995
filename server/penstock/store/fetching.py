"""Fetching a version into a directory of people's own, as a repository that can be served."""

from __future__ import annotations

import errno
import fcntl
import os
from functools import partial as bind
from pathlib import Path

from penstock.store.artifacts import Artifacts, Moved, ignore
from penstock.store.failures import RefusedError
from penstock.store.files import os_failure, sync_directory, sync_tree
from penstock.store.layout import lay_out
from penstock.store.records import VersionRecord, VersionStatus

__all__ = ["fetch_version"]


def fetch_version(
    artifacts: Artifacts, record: VersionRecord, directory: Path, moved: Moved = ignore
) -> Path:
    """Brings a version to DIRECTORY/MODEL, whole or not at all.

    A fetch that was killed leaves a hidden directory, with which the next one of the same version
    goes on: what is in there is checked, not believed.

    Args:
        artifacts: of the store.
        record: the version.
        directory: of the repository; it is made.
        moved: is told of bytes that were brought.

    Returns:
        The model's directory.

    Raises:
        RefusedError: the version is removed or quarantined, there is something of that name, or
            somebody fetches the same just now.
        CorruptError: the store's bytes are not those that were pushed.
        StoreUnavailableError: they cannot be read, or not be written here.
    """
    if record.status in (VersionStatus.REMOVED, VersionStatus.QUARANTINED):
        reason = f": {record.reason}" if record.reason else ""
        raise RefusedError(f"{record.reference} is {record.status.lower()}{reason}")
    target = directory / record.model
    partial = directory / f".{record.model}-{record.version}-{record.digest[7:23]}.part"
    try:
        if os.path.lexists(target):
            raise RefusedError(f"'{target}' is there already")
        partial.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _lock(descriptor, partial, record)
            manifest = artifacts.manifest(record.digest)
            lay_out(manifest.files, partial, record.version, bind(artifacts.copy_out, moved=moved))
            sync_tree(partial)
            os.rename(partial, target)
            sync_directory(directory)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise RefusedError(f"'{target}' is there already") from None
        raise os_failure(f"cannot fetch {record.reference}", error) from error
    return target


def _lock(descriptor: int, path: Path, record: VersionRecord) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    # Or has done so since the directory was opened: it is in its place now.
    raise RefusedError(f"another process fetches {record.reference} to there")
