"""A worker's first steps; started by path, in whatever environment the model has.

Descriptors: 3 = socket to the server, 4 = lifeline, 5 = start document (csrc/worker/process.h).
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import types
from typing import Any

SOCKET_FD = 3
LIFELINE_FD = 4
START_FD = 5
_MAX_START_BYTES = 1 << 30


def read_start(fd: int) -> dict[str, Any]:
    """The start document."""
    size = os.fstat(fd).st_size
    start: dict[str, Any] = json.loads(os.pread(fd, min(size, _MAX_START_BYTES), 0))
    os.close(fd)
    return start


def limit_memory(limit_bytes: int) -> None:
    """Bounds what the process may allocate for itself; 0 = no limit. Slabs do not count."""
    import resource

    if limit_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def make_package() -> None:
    """Makes penstock.worker importable, without importing the penstock that may be installed."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name, path in (("penstock", []), ("penstock.worker", [here])):
        package = types.ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]


def check_interpreter() -> None:
    """Ends where what every worker needs is missing; the last line is the load's fault."""
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        sys.exit(f"the model's interpreter cannot import numpy, which every worker needs: {error}")


def main() -> None:
    """Serves the model that the start document names, until the server closes the socket."""
    make_package()
    from penstock.worker.keeper import hold_lifeline, keep

    keep(LIFELINE_FD, (SOCKET_FD, START_FD))
    hold_lifeline(LIFELINE_FD, -os.getpgrp(), signal.SIGKILL)
    for fd in (SOCKET_FD, LIFELINE_FD):
        os.set_inheritable(fd, False)
    faulthandler.enable()
    sys.dont_write_bytecode = True  # a model's directory is the operator's
    for stream in (sys.stdout, sys.stderr):
        # One line, one write; and a model prints what it likes.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    start = read_start(START_FD)
    check_interpreter()
    from penstock.worker.serve import serve

    limit_memory(int(start["memory_limit_bytes"]))
    serve(SOCKET_FD, start)


if __name__ == "__main__":
    main()
