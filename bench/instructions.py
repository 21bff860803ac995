"""Instructions of the hot path per request, counted by callgrind, against those kept in the tree.

Run: .venv/bin/python bench/instructions.py [--update]

What is counted is micro/hot_path.cc: one thread, a backend that costs nothing, batches of 16. A
count does not depend on how busy the machine is, so that 2 % are a change. It does depend on the
compiler and the C library: the count kept is that of Debian 12. A change that moves it on purpose
says so and runs `--update`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build/release/bench/micro/hot_path"
BASELINE = ROOT / "bench/instructions.txt"
TOLERANCE = 0.02
TURNS = 200
REQUESTS_PER_TURN = 16
_LEFT_THREAD = 3
_MOST_TRIES = 20


def count() -> float:
    """Instructions per request.

    Raises:
        RuntimeError: valgrind or the program is missing, or the program failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None or not PROGRAM.exists():
        missing = "valgrind" if valgrind is None else str(PROGRAM.relative_to(ROOT))
        raise RuntimeError(f"{missing} is missing: `make slow` installs and builds it")
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += ["--toggle-collect=*CountedTurns*", str(PROGRAM), str(TURNS)]
    for _ in range(_MOST_TRIES):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != _LEFT_THREAD:
            break
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"hot_path ended with {done.returncode}: {done.stderr}")
    return int(found[1]) / (TURNS * REQUESTS_PER_TURN)


def baseline() -> float:
    """What the tree says."""
    line = next(x for x in BASELINE.read_text().splitlines() if not x.startswith("#"))
    return float(line.split()[1])


def main() -> None:
    """Counts, compares, and says 1 where the two differ by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    args = parser.parse_args()
    counted = count()
    if args.update:
        head = "# Instructions per request (bench/instructions.py; Debian 12, gcc 12, -O2)\n"
        BASELINE.write_text(f"{head}hot_path {counted:.1f}\n")
    change = counted / baseline() - 1
    print(f"hot_path: {counted:,.1f} instructions a request, {100 * change:+.2f} %")
    raise SystemExit(0 if abs(change) <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
