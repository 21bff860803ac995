"""Unix-domain sockets to listen on: their files are taken from the dead only, and removed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import StartupError

__all__ = ["UnixAddress"]

_PREFIX = "unix:"
_BACKLOG = 1024
_LOCK_S = 2.0
"""For other servers that look into the directory just now; each does for a moment only."""


class UnixAddress:
    """The file of a socket, from the look whether it is free to its removal.

    Threading: confined to the event loop.
    Ownership: the file, from `bind` or `adopt` on; `remove` leaves one that another has put there.
    Lifecycle: within `claimed` either bind, or adopt what somebody else bound -> remove.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, host: str) -> UnixAddress | None:
        """What an address like unix:/run/penstock.sock stands for; None for any other kind."""
        if not host.startswith(_PREFIX):
            return None
        path = host.removeprefix(_PREFIX)
        return cls(Path(path.removeprefix("//") if path.startswith("///") else path))

    @contextmanager
    def claimed(self, purpose: str) -> Iterator[None]:
        """The path is free within; no other server that asks like this takes it meanwhile.

        The socket's file of a server that is dead is removed first.

        Raises:
            StartupError: a server listens there, something else lies there, or somebody has the
                directory locked for long.
        """
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._refusal(purpose, error.strerror) from error
        try:
            self._lock(folder, purpose)
            self._free(purpose)
            yield
        finally:
            os.close(folder)

    def bind(self, purpose: str) -> socket.socket:
        """A socket that listens there; the caller closes it."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(str(self.path))
            self.adopt()
            bound.listen(_BACKLOG)
            bound.setblocking(False)
        except OSError as error:
            bound.close()
            raise self._refusal(purpose, error.strerror or str(error)) from error
        return bound

    def adopt(self) -> None:
        """The file that lies there now is this one's to remove."""
        self._file = _identity(self.path)

    def remove(self, *, is_listening: bool = False) -> None:
        """Removes the file, where it is still this one's.

        While its socket listens no other file can have its inode, and a change of its mode, which
        tells the time of a new file, does not matter.
        """
        if self._file is None:
            return
        try:
            found = _identity(self.path)
            if found == self._file or (is_listening and found[:2] == self._file[:2]):
                self.path.unlink()
        except FileNotFoundError:
            pass  # somebody has tidied up before
        self._file = None

    def _lock(self, folder: int, purpose: str) -> None:
        """Held until the folder is closed."""
        outcomes: list[str | None] = []

        def wait() -> None:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                outcomes.append(f"{error.strerror}: locking")
            else:
                outcomes.append(None)

        # flock knows no time limit. Given up, the thread lets go of what it gets: the folder is
        # closed by then.
        waiting = threading.Thread(target=wait, name="unix-address", daemon=True)
        waiting.start()
        waiting.join(_LOCK_S)
        reason = outcomes[0] if outcomes else "another process holds the lock of"
        if reason is not None:
            raise self._refusal(purpose, f"{reason} its directory {self.path.parent}")

    def _free(self, purpose: str) -> None:
        try:
            kind = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refusal(purpose, error.strerror) from error
        if not stat.S_ISSOCK(kind):
            raise self._refusal(purpose, "a file that is no socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a server whose backlog is full is alive, too
            reason = probe.connect_ex(str(self.path))
        if reason != errno.ECONNREFUSED:
            is_alive = reason in (0, errno.EAGAIN)
            text = "another server listens there" if is_alive else os.strerror(reason)
            raise self._refusal(purpose, text)
        self.path.unlink()

    def _refusal(self, purpose: str, reason: str | None) -> StartupError:
        return StartupError(f"cannot listen on {_PREFIX}{self.path} for {purpose}: {reason}")


def _identity(path: Path) -> tuple[int, int, int]:
    """Tells a file from another that has its inode since: those are used again at once."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_ctime_ns
