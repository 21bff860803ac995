"""How many devices this process sees, as its driver says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from penstock.engines.building import BuildProcess, Said, started
from penstock.errors import CancelledError, UnavailableError

_log = logging.getLogger("penstock.engines")

# Without Penstock's own modules: it takes no longer than the driver does. A server that is killed
# leaves none behind, not even where that was before this one could ask for it.
_PROGRAM = """
import ctypes, json, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("its parent has gone")
count = ctypes.c_int()
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    failure = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
except (OSError, AttributeError):
    failure = 0
answer = {"devices": 0 if failure else count.value, "failure": failure}
os.write(int(sys.argv[2]), (json.dumps(answer) + "\\n").encode())
"""

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_UNKNOWN = "how many GPUs there are is not known: "


class SeenDevices:
    """Asks the driver once it is needed, in a process of its own: a driver may hang, or crash.

    Threading: thread-safe. Blocking: `count`, for as long as the driver takes to start.
    Ownership: owns the process that asks; `close` ends it.
    """

    def __init__(
        self,
        limit_s: float = 60.0,
        command: Sequence[str] = (),
        end_s: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing yet.

        Args:
            limit_s: for the driver to answer; and a failure stands for as long.
            command: of the process that asks; (): its own.
            end_s: for a process that was killed to end.
            now: tells how old a failure is.
        """
        self._limit_s = limit_s
        self._end_s = end_s
        self._command = command
        self._now = now
        # One asks; who waits for it meanwhile has its answer, or its failure.
        self._turn = threading.Lock()
        self._devices = 0
        self._why: str | None = None
        self._failed_at = 0.0
        self._held: subprocess.Popen[bytes] | None = None  # killed, not gone
        # Of what `close` does not wait for.
        self._lock = threading.Lock()
        self._asking: BuildProcess | None = None
        self._is_closed = False

    def count(self) -> int:
        """The devices that are seen; 0 where there is no driver, or one that cannot be used.

        Only a driver that has some is not asked again: another may be there, or mended, at the next
        load. After a failure that is a later one: each would wait as long, version after version.

        Raises:
            UnavailableError: the driver does not answer in time, or what asks it fails.
            CancelledError: the server stops.
        """
        with self._turn:
            stands = self._why is not None and self._now() - self._failed_at <= self._limit_s
            if not (self._devices or stands or self._is_closed):
                self._devices, self._why = self._ask()
                self._failed_at = self._now()
            if self._is_closed:
                raise CancelledError(f"{_UNKNOWN}the server is stopping")
            if self._why is not None:
                raise UnavailableError(_UNKNOWN + self._why)
            return self._devices

    def close(self) -> None:
        """Ends a count, which fails, and refuses those that come."""
        with self._lock:
            self._is_closed = True
            if self._asking is not None:
                self._asking.stop()

    def _ask(self) -> tuple[int, str | None]:
        """The devices, or why nobody knows."""
        if self._held is not None and self._held.poll() is None:
            return 0, (
                f"process {self._held.pid}, which asked the driver before, was killed and has not "
                "ended: the driver may hold it"
            )
        own = (sys.executable, "-I", "-c", _PROGRAM, str(os.getpid()))
        try:
            with started(self._command or own, b"", {}) as child:
                return self._follow(child)
        except OSError as error:
            return 0, error.strerror or str(error)

    def _follow(self, child: BuildProcess) -> tuple[int, str | None]:
        with self._lock:
            self._asking = child
            if self._is_closed:  # meanwhile: `close` does not wait for a start
                child.stop()
        try:
            is_in_time = child.follow(lambda _: None, self._limit_s)
        finally:
            with self._lock:
                self._asking = None
            self._held = None if child.end(self._end_s) else child.process
        answer = child.answer or {}
        devices = answer.get("devices")
        if isinstance(devices, int):
            _warn_of_failure(answer)
            return devices, None
        if not is_in_time:
            return 0, f"the driver does not say within {self._limit_s:g} s"
        if child.words:
            _log.warning("what asks the driver how many GPUs there are said: %s", child.words)
        return 0, f"the process that asks the driver {child.how_ended()}"


def _warn_of_failure(answer: Said) -> None:
    """The load tells of the backend's own reason, if it has one."""
    failure = answer.get("failure", 0)
    if failure not in (0, _NO_DEVICE):
        _log.warning("the driver cannot be used, no GPU is counted: CUDA's error %s", failure)
