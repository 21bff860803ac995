"""Which files the jobs of a server may read and write: what lies within its roots, links included.

A root is a local directory or a URI such as s3://bucket/prefix. A name without a scheme that is
relative is within the first root. Roots of the scheme file are local directories.

Callers name objects, and no more of a URI than its path: what the parser of a URI would take for a
query, a fragment or an escape is refused, since the name that is checked has to be the one opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from penstock.errors import InvalidArgumentError
from penstock.jobs.storage import FoundFile, local_path, redacted

_CONTROLS = re.compile(r"[\x00-\x1f\x7f\\]")
_OF_URIS = re.compile(r"[?#%]|::")
"""What has a meaning in a URI, or to fsspec, beyond the name of an object."""


class JobRoots:
    """The roots of a server's jobs.

    Blocking: looks at directories.
    """

    def __init__(self, roots: tuple[str, ...]) -> None:
        """Takes the roots as they are; local ones may be links themselves."""
        known = [path if (path := local_path(root)) is not None else root for root in roots]
        self.first = known[0]
        self._uris = tuple(root for root in known if "://" in root)
        self._folders = tuple(Path(root).resolve() for root in known if "://" not in root)

    def resolve(self, name: str, what: str) -> str:
        """The path or URI for a name that a caller gave.

        Args:
            name: as it was given.
            what: to call it in messages: "input" or "output".

        Raises:
            InvalidArgumentError: it is not within a root. The message shows no path but the name.
        """
        if not name:
            raise InvalidArgumentError(f"{what}: a name is needed")
        if _CONTROLS.search(name):
            raise InvalidArgumentError(f"{what}: a backslash or control character in {name!r}")
        shown = redacted(name)
        if ".." in name.split("/"):
            raise InvalidArgumentError(f"{what} '{shown}': '..' is not allowed")
        if "://" in name or ("://" in self.first and not name.startswith("/")):
            if _OF_URIS.search(name):
                raise InvalidArgumentError(
                    f"{what} '{shown}': '?', '#', '%' and '::' are not allowed in a URI"
                )
            if "://" not in name:
                return _within(self.first, f"/{name}")
            found = local_path(name)
            if found is None:
                return self._resolve_uri(name, what)
            name = found
        path = Path(self.first, name)  # an absolute name replaces the root, and is checked below
        # The last part may be a pattern, or not there yet; what it will be is checked file by file.
        if not self._holds(path.parent.resolve() / path.name) or not self._holds(path.resolve()):
            raise InvalidArgumentError(f"{what} '{shown}' is not within the roots of jobs")
        return str(path)

    def check_files(self, files: Sequence[FoundFile], name: str) -> None:
        """Refuses local files that are links which lead out."""
        for file in files:
            if not self._holds(Path(file.path).resolve()):
                inner = Path(file.path).name
                raise InvalidArgumentError(
                    f"input '{name}': '{inner}' leads out of the roots of jobs"
                )

    def check_output(self, path: str, name: str) -> None:
        """Refuses an output whose own folders are links."""
        for folder in ("_work", "rejects"):
            if Path(path, folder).is_symlink():
                raise InvalidArgumentError(f"output '{name}': '{folder}' is a link")

    def is_local(self, path: str) -> bool:
        """Whether the path is of this machine."""
        return "://" not in path

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._folders)

    def _resolve_uri(self, name: str, what: str) -> str:
        """A URI within a root, with what the root has of user and query, and callers need not."""
        for root in self._uris:
            shown = redacted(root).rstrip("/")
            if name == shown or name.startswith(f"{shown}/"):
                return _within(root, name[len(shown) :])
        raise InvalidArgumentError(f"{what} '{redacted(name)}' is not within the roots of jobs")


def _within(root: str, inner: str) -> str:
    """The URI of what is in a root; the root's query, if it has one, stays behind."""
    base, mark, query = root.partition("?")
    return f"{base.rstrip('/')}{inner}{mark}{query}"
