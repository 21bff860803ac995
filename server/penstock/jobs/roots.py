"""Which files the jobs of a server may read and write: what lies within its roots, links included.

A root is a local directory or a URI such as s3://bucket/prefix. A name without a scheme that is
relative is within the first root.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.errors import InvalidArgumentError
from penstock.jobs.storage import FoundFile


class JobRoots:
    """The roots of a server's jobs.

    Blocking: looks at directories.
    """

    def __init__(self, roots: tuple[str, ...]) -> None:
        """Takes the roots as they are; local ones may be links themselves."""
        self.first = roots[0]
        self._uris = tuple(root.rstrip("/") for root in roots if "://" in root)
        self._folders = tuple(Path(root).resolve() for root in roots if "://" not in root)

    def resolve(self, name: str, what: str) -> str:
        """The path or URI for a name that a caller gave.

        Args:
            name: as it was given.
            what: to call it in messages: "input" or "output".

        Raises:
            InvalidArgumentError: it is not within a root. The message shows no path but the name.
        """
        if not name or "\0" in name:
            raise InvalidArgumentError(f"{what}: a name is needed")
        parts = name.replace("\\", "/").split("/")
        if ".." in parts:
            raise InvalidArgumentError(f"{what} '{name}': '..' is not allowed")
        if "://" in name:
            return self._resolve_uri(name, what)
        if "://" in self.first and not name.startswith("/"):
            return f"{self.first.rstrip('/')}/{name}"
        path = Path(self.first, name)  # an absolute name replaces the root, and is checked below
        # The last part may be a pattern, or not there yet; what it will be is checked file by file.
        if not self._holds(path.parent.resolve() / path.name) or not self._holds(path.resolve()):
            raise InvalidArgumentError(f"{what} '{name}' is not within the roots of jobs")
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
        if not any(name == root or name.startswith(f"{root}/") for root in self._uris):
            raise InvalidArgumentError(f"{what} '{name}' is not within the roots of jobs")
        return name
