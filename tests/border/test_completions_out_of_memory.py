"""Completions that Python has no memory to be told of are told of later, each once.

In a process of its own, of whose allocations by Python those from the N-th on fail, for each N.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("_testcapi", reason="this Python was built without its tests' helpers")

SCRIPT = """
import select
import _testcapi
from tests.support.core_models import make_engine, request, serve

COUNT = 40  # more than one chunk of any of Python's free lists holds

engine = make_engine()
serve(engine)

fd = engine.completion_fd
failed = 0
for start in range(4 * COUNT):
    for number in range(COUNT):
        engine.infer(request(), 0, number, False)
    got = []
    _testcapi.set_nomemory(start, 0)
    try:
        got = engine.flush()
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
    taken = list(got)
    failed += len(taken) < COUNT
    if 0 < len(taken) < COUNT:
        assert select.select([fd], [], [], 60)[0], (start, len(taken))
    taken += engine.flush()
    while len(taken) < COUNT:
        assert select.select([fd], [], [], 60)[0], (start, len(taken))
        taken += engine.take_completions()
    assert sorted(tag for tag, _, _, _ in taken) == list(range(COUNT)), (start, taken)
assert engine.inflight() == 0
assert failed > 0
print("each once")
"""


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="the sanitizer's allocator ends a process that has no memory",
)
def test_completions_without_memory_are_told_of_later_and_once() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "each once\n"), done.stderr
