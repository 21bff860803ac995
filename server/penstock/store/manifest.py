r"""Manifests: which files an artifact has, and its digest.

Grammar, of a manifest's text, in UTF-8::

    manifest = "penstock manifest 1\n" line+
    line     = sha256 " " size " " path "\n"

Lines are sorted by the bytes of their paths. The digest of an artifact is "sha256:" and the SHA-256
of that text: it says names, sizes and contents of all files, and nothing about times or owners.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.store.failures import CorruptError, RefusedError

__all__ = ["FileEntry", "Manifest", "path_fault", "read_manifest"]

MAX_FILES = 10_000
MAX_DEPTH = 32
"""Parts of a path."""
MAX_PATH_BYTES = 1024
_HEADER = "penstock manifest 1\n"
_LINE = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,17}) (.+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of an artifact: its path with /, its size in bytes, the SHA-256 of its contents."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact, sorted."""

    files: tuple[FileEntry, ...]

    @classmethod
    def of(cls, files: Iterable[FileEntry]) -> Manifest:
        """Sorts.

        Raises:
            RefusedError: a path is not allowed, is there twice, or is also a directory; there are
                no files or too many.
        """
        ordered = tuple(sorted(files, key=lambda entry: entry.path.encode(errors="replace")))
        faults = _faults([entry.path for entry in ordered])
        if faults:
            raise RefusedError(*faults)
        return cls(ordered)

    @property
    def text(self) -> str:
        """As the grammar has it."""
        lines = (f"{entry.sha256} {entry.size_bytes} {entry.path}\n" for entry in self.files)
        return _HEADER + "".join(lines)

    @property
    def digest(self) -> str:
        """The word sha256, a colon and 64 hexadecimal digits."""
        return _PREFIX + hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self.files)


def read_manifest(text: str) -> Manifest:
    """The manifest of a text; whoever wrote it is not trusted.

    Raises:
        CorruptError: it is none.
    """
    if not text.startswith(_HEADER) or not text.endswith("\n"):
        raise CorruptError("a manifest does not begin and end as one")
    entries = []
    for line in text[len(_HEADER) : -1].split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            raise CorruptError(f"a manifest has the line {line[:200]!r}")
        entries.append(FileEntry(match[3], int(match[2]), match[1]))
    try:
        manifest = Manifest.of(entries)
    except RefusedError as error:
        raise CorruptError(
            *(f"a manifest names what it may not: {e}" for e in error.lines)
        ) from None
    if manifest.text != text:
        raise CorruptError("a manifest is not sorted")
    return manifest


def path_fault(path: str) -> str | None:
    """Why a path may not be in an artifact; None where it may."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return f"{path!r} is not UTF-8"
    parts = path.split("/")
    if _CONTROL.search(path):
        return f"{path!r} has a control character"
    if path.startswith("/"):
        return f"'{path}' is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return f"'{path}' is not a plain path: it has an empty part, '.' or '..'"
    if size > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return f"'{path[:80]}...' is longer than {MAX_PATH_BYTES} bytes or {MAX_DEPTH} parts"
    return None


def _faults(paths: Sequence[str]) -> list[str]:
    if not paths:
        return ["there are no files"]
    if len(paths) > MAX_FILES:
        return [f"there are {len(paths)} files, expected at most {MAX_FILES}"]
    faults = [fault for fault in map(path_fault, paths) if fault]
    known = set(paths)
    if len(known) < len(paths):
        faults.append("a path is there twice")
    for path in paths:
        parts = path.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        faults += [f"'{each}' is a file and a directory" for each in above if each in known]
    return faults
