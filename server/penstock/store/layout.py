"""The files of an artifact as a model's directory in a repository, as loading wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from penstock.store.failures import RefusedError
from penstock.store.files import os_failure
from penstock.store.manifest import FileEntry, path_fault
from penstock.store.package import VERSION

__all__ = ["lay_out", "place_of"]


def place_of(path: str, number: int) -> str:
    """Where a file of an artifact belongs in the model's directory.

    Raises:
        RefusedError: the path leads elsewhere.
    """
    fault = path_fault(path)
    if fault:
        raise RefusedError(fault)
    first, slash, rest = path.partition("/")
    return f"{number}/{rest}" if slash and first == VERSION else path


def lay_out(
    files: Iterable[FileEntry],
    directory: Path,
    number: int,
    copy: Callable[[FileEntry, Path], None],
) -> None:
    """Fills a directory, which is made; what an earlier try left there, `copy` finds.

    Args:
        files: of the artifact.
        directory: of the model.
        number: of the version.
        copy: brings a file to its place.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for entry in files:
            target = directory / place_of(entry.path, number)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(entry, target)
    except OSError as error:
        raise os_failure("cannot lay out a model", error) from error
