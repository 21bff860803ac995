"""What this process and its children have in memory."""

import subprocess
import sys

from penstock.repository.memory import anonymous_bytes, trim

BALLAST = 64 << 20
MOST = BALLAST * 3 // 4
"""Of it, that must be seen: what earlier tests left may go back to the system meanwhile."""


def test_growth_of_this_process_is_seen_and_given_back() -> None:
    before = anonymous_bytes()
    ballast = bytearray(BALLAST)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert anonymous_bytes() >= before + MOST
    del ballast
    trim()
    assert anonymous_bytes() < before + MOST


def test_children_count_with_theirs() -> None:
    """Two below this one: a child, and its child, which has the memory."""
    grandchild = f"x = bytearray(b'x') * {BALLAST}; print('up', flush=True); input()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    before = anonymous_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert anonymous_bytes() >= before + MOST
        process.communicate(b"\n")
