"""Runs programs for steps: their output kept, their time bounded, their failure a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.parsing import last_line

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gpu"
"""Of the step `build`."""
SITE = ROOT / "build" / "gpu-site"
"""Python packages that were brought, for programs of the steps alone."""
STAGE = ROOT / "build" / "gpu-stage"
"""What was brought from a machine with packages: `staging`."""
LOADGEN = (STAGE / "loadgen", ROOT / "build" / "loadgen")
"""LoadGen's unpacked sources: brought, or of `make loadgen`."""
IMPORTS = tuple(
    map(str, (SITE, ROOT / "server", ROOT / "clients" / "python", ROOT / "clients" / "gateway"))
)
"""Where the server, its clients and what they import are, installed or not."""
TIMED_OUT_STATUS = 124
"""Of a program that was ended since it took too long."""


class StepError(Exception):
    """A step cannot go on; the message is the reason."""


class LeftOut(Exception):  # noqa: N818 (it is no error)
    """What a step needs is not on this machine; the message says what."""


@dataclass(frozen=True)
class Ran:
    """What a program did.

    Attributes:
        status: its exit status.
        output: what it printed, both streams.
    """

    status: int
    output: str


Run = Callable[[Sequence[str], float], Ran]


def run(command: Sequence[str], limit_s: float) -> Ran:
    """Runs a command in the repository's root; its children end with it.

    Python finds the tree's packages, installed or not. Its temporary files, which one that is ended
    cannot remove, are in a folder that goes with it. One that takes longer than `limit_s` is
    ended: TIMED_OUT_STATUS, with the lines that it had printed and one that says so.

    Raises:
        StepError: There is no such program.
    """
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", ignore_cleanup_errors=True) as scratch:
        return _run(command, limit_s, scratch)


def _run(command: Sequence[str], limit_s: float, scratch: str) -> Ran:
    # Not while it is being started: it would be nobody's to end yet.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process = _start(command, held, scratch)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        lines = output[: output.rfind("\n") + 1]  # it may have been ended within one
        told = f"{Path(command[0]).name} was not through after {limit_s:.0f} s: {last_line(lines)}"
        return Ran(TIMED_OUT_STATUS, f"{lines}{told}\n")
    except BaseException:  # interrupted
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
        raise
    return Ran(process.returncode, output)


def _start(command: Sequence[str], blocked: Iterable[int], scratch: str) -> subprocess.Popen[str]:
    """Starts it in a session of its own, with these signals blocked and no others."""
    paths = [*IMPORTS, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": scratch},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, blocked),
        )
    except OSError as error:
        raise StepError(f"{command[0]} cannot be run: {error.strerror}") from None


def succeed(ran: Ran, what: str) -> str:
    """The output of what ended well.

    Raises:
        StepError: It did not; with its last line.
    """
    if ran.status != 0:
        raise StepError(f"{what} ended with status {ran.status}: {last_line(ran.output)}")
    return ran.output
