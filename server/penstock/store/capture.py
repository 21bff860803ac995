"""What can be known of a version without asking: the code that made it, and who pushes."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

from penstock.store.location import scrubbed, without_credentials
from penstock.store.records import Link

__all__ = ["code_of", "scrubbed", "user"]

_LIMIT_S = 20.0
_FILTERS = r"^filter\..*\.(clean|smudge|process)$"


def code_of(*places: Path) -> Link | None:
    """The first of the places that is in a git repository: its commit, branch and changes.

    A repository without a commit, or no git at all, is no code that could be found again.

    Args:
        places: the first of them is what is pushed: its own files are kept with the version, and
            count as code only where git tracks them.
    """
    for place in places:
        directory = place if place.is_dir() else place.parent
        commit = _git(directory, "rev-parse", "--verify", "HEAD")
        if not commit:
            continue
        remote = _git(directory, "config", "--get", "remote.origin.url") or ""
        root = _git(directory, "rev-parse", "--show-toplevel") or str(directory)
        changed, untracked = _changed(directory), _untracked(directory, Path(root), places[0])
        return Link(
            "code",
            without_credentials(remote) or Path(root).name,
            revision=commit,
            uri=without_credentials(remote),
            details={
                "branch": _git(directory, "symbolic-ref", "--short", "-q", "HEAD") or "",
                "dirty": bool(changed) or changed is None or untracked != 0,
                "untracked": untracked or 0,
            },
        )
    return None


def _changed(directory: Path) -> str | None:
    """What differs from the commit; None: it cannot be known.

    Where the repository's own configuration names filters it is not asked for: it would run them.
    """
    filters = _git(directory, "config", "--show-scope", "--includes", "--get-regexp", _FILTERS)
    if any(line.startswith(("local", "worktree")) for line in (filters or "").splitlines()):
        return None
    only = ("--untracked-files=no", "--ignore-submodules=all")
    return _git(directory, "status", "--porcelain", *only)


def _untracked(directory: Path, root: Path, pushed: Path) -> int | None:
    """How many files and directories git neither tracks nor ignores; None: it cannot be known.

    Without what is pushed.
    """
    where = [":(top)"]
    path = pushed.resolve()
    if path.is_relative_to(root.resolve()):
        where.append(f":(exclude,literal){path}")
    listing = ("--others", "--exclude-standard", "--directory", "--no-empty-directory", "-z")
    found = _git(directory, "ls-files", *listing, "--", *where)
    return None if found is None else len([name for name in found.split("\0") if name])


def user() -> str:
    """Who runs this process, and where: what events call the actor."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _git(directory: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails. Hooks of the repository are not run."""
    hooks = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *hooks, *arguments],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
