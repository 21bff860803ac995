"""Where inputs are read and outputs are written: a local directory or an object store.

A file appears whole or not at all. Locally it is written under a name that begins with a dot,
flushed to the disk and renamed, and the directory is flushed too. For an object store it is put
together in a temporary file of this machine first; the upload becomes visible when it ends.
Filesystems are pyarrow's, and fsspec's for what pyarrow does not have.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import posixpath
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs as pafs

from penstock.jobs.failures import BusyError, PlanError, TemporaryError
from penstock.jobs.sink import Sink

_OURS = {"az": "adlfs", "memory": "fsspec"}
"""Schemes that fsspec serves, and the package that does it; further ones are tried as well."""

_KEPT_IN_MEMORY_BYTES = 8 << 20  # of a file for an object store; the rest goes to the disk
_UPLOAD_BYTES = 4 << 20  # at a time
_WRITES = itertools.count()
_PROCESS = secrets.token_hex(4)
"""Processes of other machines may have the same number."""
_QUERY = re.compile(r"(?<=\w)\?\w+=[^\s'\"]*")
_SCRATCH = re.compile(r"\.part-(\d+)\..*\.tmp.*")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of an input.

    Attributes:
        path: within its filesystem.
        size_bytes: of the file.
        changed_ns: time of the last write; 0 = unknown.
    """

    path: str
    size_bytes: int
    changed_ns: int


def redacted(uri: str) -> str:
    """A URI as messages show it: without user, password and query, which may be secrets."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    # A password may hold a slash that should have been escaped.
    bare = re.sub(r"^(?:[^/@]*:[^@]*|[^/@]*)@", "", re.split(r"[?#]", rest, maxsplit=1)[0])
    return f"{scheme}://{bare}"


def local_path(uri: str) -> str | None:
    """The path that a URI of this machine means, or a path itself; None for other URIs."""
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return uri
    if scheme.lower() not in ("file", "local"):
        return None
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.netloc in ("", "localhost") else None


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The filesystem of a URI or local path, and the path in it.

    Raises:
        PlanError: nothing serves the scheme, or its package is missing.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), os.path.abspath(uri)
    if scheme not in _OURS:
        try:
            return pafs.FileSystem.from_uri(uri)  # type: ignore[no-any-return]
        except (ValueError, OSError, NotImplementedError) as error:
            reason = str(error)
            if "nrecognized" not in reason and "not built" not in reason:
                raise _not_opened(uri, reason) from None
    return _with_fsspec(uri, scheme)


def _with_fsspec(uri: str, scheme: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise PlanError(f"{redacted(uri)} needs fsspec: pip install 'penstock[batch]'") from None
    try:
        found, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        package = _OURS.get(scheme, "")
        hint = f": pip install {package}" if package and isinstance(error, ImportError) else ""
        raise _not_opened(uri, f"{error}{hint}") from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(found)), path


def _not_opened(uri: str, reason: str) -> PlanError:
    return PlanError(f"cannot open {redacted(uri)}: {reason.replace(uri, redacted(uri))}")


def find_files(uri: str) -> tuple[Any, list[FoundFile]]:
    """The files that a URI means: one, all in a directory, or those that fit a pattern; by name.

    Names that begin with a dot or an underscore are left out of directories, and so are the rejects
    of a job whose outputs a directory is.

    Raises:
        PlanError: there are none.
    """
    filesystem, path = open_filesystem(uri)
    pattern = posixpath.basename(path) if set("*?[") & set(posixpath.basename(path)) else ""
    folder = posixpath.dirname(path) if pattern else path
    try:
        (info,) = filesystem.get_file_info([folder])
        if info.type == pafs.FileType.NotFound:
            raise PlanError(f"no file found at {redacted(uri)}")
        if info.type == pafs.FileType.File:
            return filesystem, [_found(info)]
        selector = pafs.FileSelector(folder, recursive=not pattern)
        listed = filesystem.get_file_info(selector)
    except OSError as error:
        raise PlanError(f"cannot read {redacted(uri)}: {reason_of(error)}") from None
    files = [
        _found(info)
        for info in listed
        if info.type == pafs.FileType.File and _is_wanted(info.path, folder, pattern)
    ]
    if any(file.path == posixpath.join(folder, "manifest.json") for file in files):
        rejects = re.compile(re.escape(posixpath.join(folder, "rejects/part-")) + r"\d+\.\w+")
        files = [file for file in files if not rejects.fullmatch(file.path)]
    if not files:
        raise PlanError(f"no file found at {redacted(uri)}")
    return filesystem, sorted(files, key=lambda file: file.path)


def _is_wanted(path: str, folder: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    if pattern:
        return fnmatchcase(posixpath.basename(path), pattern)
    parts = path[len(folder) :].strip("/").split("/")
    return not any(part.startswith((".", "_")) for part in parts)


def _found(info: Any) -> FoundFile:
    return FoundFile(info.path, info.size or 0, info.mtime_ns or 0)


def reason_of(error: Exception) -> str:
    """What went wrong, on one line, without a number and without queries of URLs: they may sign."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return _QUERY.sub("", " ".join(text.split()))


class Storage:
    """A directory of outputs.

    Threading: thread-compatible.
    Blocking: everything.
    """

    def __init__(self, uri: str) -> None:
        """Opens nothing yet; PlanError where nothing serves the URI."""
        self.uri = redacted(uri)
        self._filesystem, self._root = open_filesystem(uri)
        self._is_local = isinstance(self._filesystem, pafs.LocalFileSystem)

    @property
    def local_root(self) -> Path | None:
        """The directory, where it is one of this machine."""
        return Path(self._root) if self._is_local else None

    def names(self, folder: str = "") -> list[str]:
        """Names of files directly in a folder; none where there is no folder."""
        selector = pafs.FileSelector(self._path(folder), allow_not_found=True)
        with self._failures("list", folder):
            infos = self._filesystem.get_file_info(selector)
        files = [info.base_name for info in infos if info.type == pafs.FileType.File]
        return sorted(name for name in files if not name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""
        try:
            with self._filesystem.open_input_stream(self._path(name)) as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TemporaryError(f"cannot read {self.uri}/{name}: {reason_of(error)}") from None

    def write(self, name: str, content: bytes) -> None:
        """Puts a file there at once; several processes may write the same."""
        with self.create(name, f".{os.getpid()}-{_PROCESS}-{next(_WRITES)}") as sink:
            sink.write(content)

    @contextmanager
    def create(self, name: str, scratch: str = "") -> Iterator[Sink]:
        """A file that appears when the block ends well, and not at all when it raises.

        Args:
            name: of the file.
            scratch: suffix of the name it has meanwhile, behind a dot before; "" = one of this
                process.

        Raises:
            TemporaryError: it cannot be written: the disk is full, say.
        """
        suffix = scratch or f".tmp-{os.getpid()}-{_PROCESS}"
        with self._failures("write", name):
            if self._is_local:
                yield from _create_local(Path(self._path(name)), suffix)
            else:
                yield from self._create_remote(self._path(name))

    def remove(self, names: Sequence[str]) -> None:
        """Removes files; those that are not there are no fault."""
        for name in names:
            with self._failures("remove", name):
                try:
                    self._filesystem.delete_file(self._path(name))
                except FileNotFoundError:
                    pass

    def remove_scratch(self, folder: str, is_mine: Callable[[int], bool]) -> None:
        """Removes what processes that were killed left of parts, by number, in a folder."""
        if not self._is_local:
            return
        with self._failures("remove", folder):
            for path in Path(self._path(folder)).glob(".part-*"):
                found = _SCRATCH.fullmatch(path.name)
                if found and is_mine(int(found[1])):
                    path.unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Removes a folder with all in it."""
        path = self._path(folder)
        with self._failures("remove", folder):
            try:
                self._filesystem.delete_dir(path)
            except FileNotFoundError:
                pass
            except OSError:  # not every store removes many at once
                selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
                for info in self._filesystem.get_file_info(selector):
                    if info.type == pafs.FileType.File:
                        self._filesystem.delete_file(info.path)

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root

    @contextmanager
    def _failures(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TemporaryError(f"cannot {verb} {self.uri}/{name}: {reason_of(error)}") from None

    def _create_remote(self, path: str) -> Iterator[Sink]:
        # An upload that is begun cannot be given up: pyarrow ends it, cut short, when its stream
        # goes. So it begins when all is there.
        with tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY_BYTES) as spool:
            yield Sink(spool.write)
            spool.seek(0)
            self._upload(spool, path)

    def _upload(self, source: Any, path: str) -> None:
        stream = self._filesystem.open_output_stream(path)
        try:
            shutil.copyfileobj(source, stream, _UPLOAD_BYTES)
            stream.close()
        except BaseException:
            with suppress(OSError):
                stream.close()
            with suppress(OSError):  # half of a file, should that have made one
                self._filesystem.delete_file(path)
            raise


def _create_local(path: Path, suffix: str) -> Iterator[Sink]:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}{suffix}")
    try:
        # A link of that name would have it written elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(scratch, flags, 0o666), "wb") as file:
            yield Sink(file.write)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _flush_directory(path.parent)


def _flush_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def only_one(storage: Storage, name: str, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes from the same work; object stores have no locks, and are not kept.

    Args:
        storage: where the lock's file is.
        name: of the file; it stays.
        wait: until whoever has it lets go. Blocking, then.

    Raises:
        BusyError: somebody is at it.
        TemporaryError: the file cannot be made: the disk is full, say.
    """
    root = storage.local_root
    if root is None:
        yield
        return
    path = root / name
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A link of that name would have a file elsewhere made.
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
            file = stack.enter_context(os.fdopen(os.open(path, flags, 0o666), "wb"))
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BusyError(f"another process works on {storage.uri}") from None
        except OSError as error:
            raise TemporaryError(f"cannot lock {storage.uri}/{name}: {reason_of(error)}") from None
        yield
