"""Unix-domain sockets to listen on: their files are taken from the dead only, and removed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import StartupError

__all__ = ["UnixAddress"]

_PREFIX = "unix:"
_BACKLOG = 1024


class UnixAddress:
    """The file of a socket, from the look whether it is free to its removal.

    Threading: confined to the event loop.
    Ownership: the file, from `bind` or `adopt` on; `remove` leaves one that another has put there.
    Lifecycle: within `claimed` either bind, or adopt what somebody else bound -> remove.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: tuple[int, int] | None = None

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
            StartupError: a server listens there, or something else lies there.
        """
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._refusal(purpose, error.strerror) from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # let go of when the folder is closed
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
        found = self.path.lstat()
        self._inode = (found.st_dev, found.st_ino)

    def remove(self) -> None:
        """Removes the file, where it is still this one's."""
        if self._inode is None:
            return
        try:
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._inode:
                self.path.unlink()
        except FileNotFoundError:
            pass  # somebody has tidied up before
        self._inode = None

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
