"""What the models of a repository look like on disk at one moment, without reading a file.

Of every file below a model's directory a snapshot holds size, time of the last write, inode, mode
and owner: two that are equal tell that nothing was written in between. Hidden entries of a model's
directory are left out, so that a new version can be copied beside the others under a hidden name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import StartupError
from penstock.repository.layout import list_models

__all__ = ["Entry", "ModelSnapshot", "RepositoryScanner", "Root", "Snapshot"]

MAX_ENTRIES = 10_000
"""Files and directories of one model; one that has more is not followed."""
MAX_DEPTH = 32
"""Directories within each other."""

Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or link of a model.

    Attributes:
        path: relative to the repository, after the repository's number.
        kind: file, directory, link or other.
        size: of a file, in bytes.
        mtime_ns: of a file.
        ctime_ns: of a file; copying tools set the one above, and nobody can set this.
        inode: of a file or a link.
        access: mode, user and group; a change of them may be what lets a load succeed.
        target: of a link, as written.
    """

    path: str
    kind: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    access: tuple[int, int, int] = (0, 0, 0)
    target: str = ""


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A model's files by path; `fault` says why there is no telling, then there are no entries."""

    entries: tuple[Entry, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Root:
    """A repository: which directory it is, and how many models were in it."""

    path: Path
    identity: Identity
    model_count: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All repositories. `models` are by name, also one that is in several repositories."""

    models: Mapping[str, ModelSnapshot] = field(default_factory=dict)
    roots: tuple[Root, ...] = ()


class RepositoryScanner:
    """Takes snapshots.

    Threading: thread-safe. Blocking: every method, for as long as the file system takes.
    """

    def __init__(self, repositories: Sequence[Path], max_entries: int = MAX_ENTRIES) -> None:
        self._repositories = tuple(repositories)
        self._max_entries = max_entries

    def scan(self) -> Snapshot:
        """Every model of the repositories.

        Raises:
            StartupError: a repository cannot be read.
        """
        names: set[str] = set()
        roots = []
        for repository in self._repositories:
            found = list_models([repository])
            roots.append(Root(repository, _identity(repository), len(found)))
            names.update(found)
        models = {name: self.scan_model(name) for name in sorted(names)}
        return Snapshot(models, tuple(roots))

    def scan_model(self, name: str) -> ModelSnapshot:
        """One model, in whichever repositories it is; without entries where it is in none."""
        walk = _Walk(self._max_entries)
        try:
            for number, repository in enumerate(self._repositories):
                walk.add_model(repository, name, f"{number}:{name}")
        except _TooLargeError as error:
            return ModelSnapshot(fault=str(error))
        except OSError as error:
            return ModelSnapshot(fault=f"its directory cannot be read: {error.strerror}")
        return ModelSnapshot(tuple(walk.entries))


def _identity(repository: Path) -> Identity:
    try:
        status = os.stat(repository)
    except OSError as error:
        raise StartupError(
            f"cannot read model repository '{repository}': {error.strerror}"
        ) from error
    return status.st_dev, status.st_ino


class _TooLargeError(Exception):
    """More than a walk takes; the text says of what."""


class _Walk:
    """Collects entries, depth first and by name. What vanishes meanwhile is not there.

    Links are followed as far as `layout.inside` lets a load follow them, which is within the
    repository; of others the link itself is noted, so that its change is seen.
    """

    def __init__(self, max_entries: int) -> None:
        self.entries: list[Entry] = []
        self._max_entries = max_entries
        self._root = ""

    def add_model(self, repository: Path, name: str, shown: str) -> None:
        self._root = os.path.realpath(repository)
        self._add(str(repository / name), shown, ())

    def _add(self, path: str, shown: str, above: tuple[Identity, ...]) -> None:
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(path)
                self._append(Entry(shown, "link", inode=status.st_ino, target=target))
                self._follow(path, shown, above)
            else:
                self._add_status(path, shown, above, status)
        except FileNotFoundError:
            return

    def _follow(self, path: str, shown: str, above: tuple[Identity, ...]) -> None:
        try:
            resolved = os.path.realpath(path, strict=True)
            status = os.stat(resolved)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise
        if os.path.commonpath([self._root, resolved]) == self._root:
            self._add_status(path, shown, above, status)

    def _add_status(
        self, path: str, shown: str, above: tuple[Identity, ...], status: os.stat_result
    ) -> None:
        access = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        if not stat.S_ISDIR(status.st_mode):
            kind = "file" if stat.S_ISREG(status.st_mode) else "other"
            written = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            self._append(Entry(shown, kind, *written, access))
            return
        self._append(Entry(shown, "directory", access=access))
        identity = (status.st_dev, status.st_ino)
        if identity not in above:  # else a link leads back up
            self._add_children(path, shown, (*above, identity))

    def _add_children(self, path: str, shown: str, above: tuple[Identity, ...]) -> None:
        if len(above) > MAX_DEPTH:
            raise _TooLargeError(f"its directories are nested deeper than {MAX_DEPTH}")
        names = []
        with os.scandir(path) as found:
            for entry in found:
                if len(above) == 1 and entry.name.startswith("."):
                    continue
                names.append(entry.name)
                self._check_count(len(self.entries) + len(names))
        for name in sorted(names):
            self._add(os.path.join(path, name), f"{shown}/{name}", above)

    def _append(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._check_count(len(self.entries))

    def _check_count(self, count: int) -> None:
        if count > self._max_entries:
            raise _TooLargeError(f"it has more than {self._max_entries} files and directories")
