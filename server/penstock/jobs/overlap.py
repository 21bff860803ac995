"""Whether an output is in the way of its own input, links included."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

from pyarrow import fs as pafs

from penstock.jobs.storage import FoundFile, open_filesystem, redacted


def overlap(input_uri: str, files: Sequence[FoundFile], output_uri: str) -> str:
    """Why an output would be in its own input's way; "" if it is not. Blocking.

    Args:
        input_uri: the input.
        files: what it means.
        output_uri: a directory, which need not be there.
    """
    (reading, source), (writing, target) = open_filesystem(input_uri), open_filesystem(output_uri)
    if reading.type_name != writing.type_name:
        return ""
    real = _RealPaths(is_local=isinstance(reading, pafs.LocalFileSystem))
    output, shown = real.of(target), f"output {redacted(output_uri)}"
    if any(_is_within(real.of(file.path), output) for file in files):
        return f"{shown} is or contains the input {redacted(input_uri)}: use another directory"
    is_folder = files[0].path != source and files[0].path.startswith(f"{source.rstrip('/')}/")
    if is_folder and _is_within(output, real.of(source)):
        return f"{shown} lies within the input {redacted(input_uri)}: use another directory"
    return ""


class _RealPaths:
    """Paths without links; each folder is looked up once."""

    def __init__(self, *, is_local: bool) -> None:
        self._is_local = is_local
        self._folders: dict[str, str] = {}

    def of(self, path: str) -> str:
        if not self._is_local:
            return posixpath.normpath(path)
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = posixpath.split(path.rstrip("/"))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return posixpath.join(self._folders[folder], name)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
