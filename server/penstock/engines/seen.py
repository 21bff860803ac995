"""How many devices this process sees, as its driver says."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence

from penstock.engines.building import started

_log = logging.getLogger("penstock.engines")

# Without Penstock's own modules: it takes no longer than the driver does.
_PROGRAM = """
import ctypes, json, os, sys
count = ctypes.c_int()
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    failure = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
except (OSError, AttributeError):
    failure = 1
answer = {"devices": 0 if failure else count.value}
os.write(int(sys.argv[1]), (json.dumps(answer) + "\\n").encode())
"""


class SeenDevices:
    """Asks the driver once it is needed, in a process of its own: a driver may hang, or crash.

    Threading: thread-safe. Blocking: `count`, for as long as the driver takes to start.
    """

    def __init__(
        self,
        limit_s: float = 60.0,
        command: Sequence[str] = (sys.executable, "-I", "-c", _PROGRAM),
    ) -> None:
        self._limit_s = limit_s
        self._command = command
        self._lock = threading.Lock()
        self._count: int | None = None

    def count(self) -> int:
        """The devices that are seen; 0 where there is no driver that says so.

        A driver that does not answer is not asked again; one that has none may be, for it is there
        once it is installed.
        """
        with self._lock:
            if self._count is None:
                found = self._ask()
                self._count = found or None
                return found
            return self._count

    def _ask(self) -> int:
        try:
            with started(self._command, b"", {}) as child:
                is_in_time = child.follow(lambda _: None, self._limit_s)
                child.end(1.0)
        except OSError:
            return 0
        if not is_in_time:
            _log.warning("the driver does not tell in time how many GPUs there are: one is counted")
            return 1
        found = (child.answer or {}).get("devices")
        return found if isinstance(found, int) else 0
