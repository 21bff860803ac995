"""A restart on one host without a gap: the listening sockets are passed on to a successor.

On SIGUSR2 the server starts its own command line again, with its listening sockets (`frontend.
listeners`), and serves on. Once the successor is ready it says so on the connection between the
two, and the server drains; connections that nobody has taken yet wait in the sockets, which both
have. A successor that ends before it is ready changes nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from penstock.config import ServerConfig
from penstock.frontend.listeners import FIRST_FD, PREDECESSOR

__all__ = ["Successor", "announce_ready", "refusal"]

_READY = b"R"
_MAX_NAMES = 10
_ABOVE_ALL_FD = FIRST_FD + 64
"""Where copies lie that are put in their places one by one."""

# LISTEN_PID is the number of the process that is to have the sockets, known in that process only.
_SCRIPT = 'export LISTEN_PID=$$; exec "$@"'

_log = logging.getLogger(__name__)


class Successor:
    """The process that is to follow this one, from its start to its first word.

    Threading: confined to the event loop.
    Ownership: the connection to it.
    Lifecycle: constructed (the process runs) -> is_ready, or dismiss while that is not over.
    """

    def __init__(self, listeners: Mapping[str, Sequence[socket.socket]]) -> None:
        """Starts it; OSError where the system cannot.

        Args:
            listeners: what it inherits, by side ("grpc", "http", "metrics").
        """
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        passed = [(name, each) for name, sockets in listeners.items() for each in sockets]
        with theirs:
            try:
                self.pid = _spawn([*passed, (PREDECESSOR, theirs)])
            except OSError:
                self._ours.close()
                raise

    async def is_ready(self) -> bool:
        """Waits for its first word. False: it has ended before, and why is in the log."""
        word = b""
        try:
            with suppress(ConnectionError):
                word = await asyncio.get_running_loop().sock_recv(self._ours, 1)
        finally:
            self._ours.close()
        if word == _READY:
            return True
        how = await asyncio.to_thread(self._wait)
        _log.error("the successor, process %d, ended before it was ready: %s", self.pid, how)
        return False

    def _wait(self) -> str:
        """How it ended."""
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:  # whoever started this server has SIGCHLD ignored
            return "exit code unknown"
        code = os.waitstatus_to_exitcode(status)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def dismiss(self) -> None:
        """Asks one that is not ready yet to end."""
        self._ours.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def refusal(config: ServerConfig, transport: str, unlike_start: Sequence[str]) -> str:
    """Why a server cannot be followed by another process; empty if it can.

    Args:
        config: the server's settings.
        transport: what carries gRPC: "native" or "grpcio".
        unlike_start: models that a start with the settings would not serve as this server does.
    """
    if config.jobs_root:
        return "--jobs-root: two processes would run its jobs at the same time"
    if os.getpid() == 1:
        return "it is process 1, with which its container ends: start another container"
    if transport == "grpcio":
        return "grpcio takes over no listening socket: expected --transport native"
    if config.model_control_mode == "explicit" and unlike_start:
        names = ", ".join(f"'{each}'" for each in unlike_start[:_MAX_NAMES])
        more = f" and {len(unlike_start) - _MAX_NAMES} more" if unlike_start[_MAX_NAMES:] else ""
        return f"by --load-model it would not serve as this one does: {names}{more}"
    return ""


def announce_ready(predecessor: socket.socket | None) -> None:
    """Tells the process that this one follows, if any, that it may go."""
    if predecessor is not None:
        with predecessor, suppress(OSError):  # it has ended meanwhile, which is as well
            predecessor.send(_READY)


def _spawn(passed: Sequence[tuple[str, socket.socket]]) -> int:
    """Starts this command line again with the sockets at FIRST_FD and on; the process's number."""
    environ = {key: each for key, each in os.environ.items() if key != "WATCHDOG_PID"}
    environ["LISTEN_FDS"] = str(len(passed))
    environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
    command = [sys.executable, *sys.orig_argv[1:]]
    with ExitStack() as copies:
        actions = []
        for number, (_, each) in enumerate(passed):
            copy = fcntl.fcntl(each.fileno(), fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL_FD)
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, FIRST_FD + number))
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _SCRIPT, "sh", *command],
            environ,
            file_actions=actions,
            setsigmask=(),
            setsigdef=(signal.SIGUSR2, signal.SIGTERM, signal.SIGINT),
        )
