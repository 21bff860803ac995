"""Builds one engine, in a process of its own: `python -m penstock.engines.child`.

TensorRT's builder may crash, hang or take all memory, and a server must not. The request is JSON on
standard input. Progress and, last, the answer are lines of JSON on the descriptor that the only
argument names; what else the process writes are the vendor's own words.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from penstock.engines.build import BuildRequest, build_engine
from penstock.engines.key import ShapeRange
from penstock.engines.profiles import OpenBatch
from penstock.errors import PenstockError

_PR_SET_PDEATHSIG = 1


def main(answer_to: int) -> int:
    """Builds what standard input asks for.

    Args:
        answer_to: the descriptor that is written to: {"phase": name, "done": steps, "of": steps}
            now and then, in the end {} or {"error": why}.

    Returns:
        The exit code.
    """
    _end_with_the_server()
    fields = json.load(sys.stdin)
    try:
        build_engine(_read_request(fields), _Progress(answer_to))
    except PenstockError as error:
        answer = {"error": str(error)}
    else:
        answer = {}
    _say(answer_to, answer)
    return 1 if answer else 0


class _Progress:
    """Tells of each tenth of a phase: a network has more steps than a log should have lines."""

    _PARTS = 10

    def __init__(self, answer_to: int) -> None:
        self._answer_to = answer_to
        self._told: tuple[str, int] | None = None

    def __call__(self, phase: str, done: int, steps: int) -> None:
        part = (phase, done * self._PARTS // max(steps, 1))
        if part != self._told:
            self._told = part
            _say(self._answer_to, {"phase": phase, "done": done, "of": steps})


def _say(answer_to: int, said: dict[str, Any]) -> None:
    """A line, whole: longer ones than a pipe takes at once are written on."""
    left = json.dumps(said).encode() + b"\n"
    while left:
        left = left[os.write(answer_to, left) :]


def _read_request(fields: dict[str, Any]) -> BuildRequest:
    timings, batch = fields["timing_cache"], fields["open_batch"]
    return BuildRequest(
        model=Path(fields["model"]),
        output=Path(fields["output"]),
        label=fields["label"],
        flavour=fields["flavour"],
        buckets=tuple(fields["buckets"]),
        open_batch=None
        if batch is None
        else OpenBatch(batch["rows"], tuple(batch["preferred"]), batch["listed"]),
        ranges={
            name: ShapeRange(*(tuple(shape) for shape in shapes))
            for name, shapes in fields["ranges"].items()
        },
        timing_cache=None if timings is None else Path(timings),
    )


def _end_with_the_server() -> None:
    """A server that is killed leaves no build behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
