"""The keeper: a worker's parent, which ends whatever the worker started.

A process that a model starts may leave the worker's process group, or be left behind by whoever
started it. It still is a descendant of the keeper, which takes in orphans
(PR_SET_CHILD_SUBREAPER), and kills all that is left once the worker has ended, the server has
gone, or the server asks for it by SIGTERM. Then it ends as the worker did.

    server ── keeper ── worker ── what the model starts
       └─ lifeline ─┴──────┘      SIGTERM for the keeper, SIGKILL for the worker's group

Not ended: what another user's process has become (setuid), and whatever is there when the keeper
itself is killed, but for the worker.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_F_SETSIG = 10  # fcntl.F_SETSIG, which Python does not name
_SWEEP_LIMIT_S = 5  # of processes that the kernel holds on to


def keep(lifeline_fd: int, other_fds: tuple[int, ...]) -> None:
    """Forks: the child returns as the worker, in a process group of its own; the parent keeps it.

    Args:
        lifeline_fd: read end of a pipe whose other end goes with the server.
        other_fds: the worker's descriptors, which the keeper closes.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the worker's keeper cannot take in orphans")
    # For a signal between the fork and the next line.
    signal.signal(signal.SIGTERM, lambda number, frame: _sweep_and_end(signal.SIGKILL))
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:  # it was killed before
            os._exit(1)
        return
    for fd in other_fds:
        os.close(fd)
    hold_lifeline(lifeline_fd, os.getpid(), signal.SIGTERM)
    _keep(worker)


def hold_lifeline(fd: int, owner: int, number: int) -> None:
    """Has the kernel send a signal once the other end of the pipe is closed.

    That works whatever the receiver does then, computing in C with the interpreter's lock held
    included.

    Args:
        fd: the read end; it is opened anew, for a signal is an open file's.
        owner: process that gets it; negative: a process group.
        number: of the signal.
    """
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
    os.dup2(own, fd, inheritable=False)
    os.close(own)
    fcntl.fcntl(fd, fcntl.F_SETOWN, owner)
    fcntl.fcntl(fd, _F_SETSIG, number)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(fd, 0)  # hang-ups are always told
    if poll.poll(0):  # it was closed before
        os.kill(owner, number)


def _keep(worker: int) -> NoReturn:
    """Reaps orphans until the worker ends, then ends as it did."""
    while True:
        pid, status = os.wait()
        if pid == worker:
            break
    if os.WIFSIGNALED(status):
        _sweep_and_end(os.WTERMSIG(status))
    _sweep()
    os._exit(os.WEXITSTATUS(status))


def _sweep_and_end(number: int) -> NoReturn:
    """Kills every descendant, then itself by the signal."""
    _sweep()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core that says something is the worker's
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(1)


def _sweep() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_SWEEP_LIMIT_S)
    while True:
        for pid in _descendants(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()  # then there are new children, orphans of that one
        except ChildProcessError:
            break
    signal.alarm(0)


def _descendants(root: int) -> Iterator[int]:
    """Processes below one, children before theirs."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            children.setdefault(_parent(name), []).append(int(name))
    found = [root]
    for parent in found:
        found += children.get(parent, ())
    yield from found[1:]


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Behind the name, which may hold anything: state, parent.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0  # it has gone
