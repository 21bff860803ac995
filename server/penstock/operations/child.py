"""Counts one model's operations, in a process of its own: `python -m penstock.operations.child`.

A graph is whatever its maker wrote: one that makes the inference of shapes crash, go on or take all
memory ends this process, and no server. The request is JSON on standard input, the answer JSON on
standard output.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_IDLE = 19


def main() -> int:
    """Answers {"operations": their number} or {"error": why}; the exit code."""
    request = json.load(sys.stdin)
    _bound(request["limit_s"], request["limit_bytes"])
    json.dump(_answer(request["path"], request["inputs"]), sys.stdout)
    return 0


def _answer(path: str, inputs: dict[str, list[int]]) -> dict[str, Any]:
    try:
        from penstock.operations.count import UncountableError, count_operations, read_model
    except ModuleNotFoundError as error:
        return {"error": f"the package {error.name} is not installed"}
    try:
        return {"operations": count_operations(read_model(path), inputs)}
    except UncountableError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "it takes more memory than counting may have"}


def _bound(limit_s: int, limit_bytes: int) -> None:
    """Of CPU and memory; whatever else runs goes first, and the server's end is its own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))  # SIGXCPU, then SIGKILL
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_IDLE)
    with contextlib.suppress(OSError):  # where memory is short the kernel ends this one first
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
