"""Two revisions against each other: native benchmarks, run alternately on this machine.

Run: .venv/bin/python bench/compare.py BASE [HEAD] [--rounds 10] [--seconds 0.5]

Each revision is checked out and built in build/compare; HEAD is the working tree's commit unless
another is named. Every round runs micro/engine_bench of one, then of the other, the first one
changing. Printed for every benchmark is the ratio of the rates, HEAD's to BASE's (over 1: quicker),
as the median of the rounds with a bootstrap interval of 95 %. A benchmark whose interval has 1
outside has changed, if there were six rounds at least; whether that matters is for who reads it.
The exit status is 0, and 1 only where a benchmark broke. The builds stay for the next time (`make
clean`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build/compare"
_DRAWS = 10_000
_LEAST_ROUNDS = 6
"""Five rounds of nothing but noise are all on one side of 1 once in 16 times: over 5 %."""


def interval(ratios: list[float], seed: int = 1) -> tuple[float, float, float]:
    """The median of ratios, and the bootstrap interval of 95 % around it."""
    values = np.asarray(ratios)
    draws = np.random.default_rng(seed).choice(values, (_DRAWS, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)


def verdict(low: float, high: float, rounds: int) -> str:
    """What an interval of ratios of rates says, made from so many rounds."""
    if rounds < _LEAST_ROUNDS:
        return "too few rounds to say"
    if low > 1:
        return "quicker"
    return "slower" if high < 1 else "no difference shown"


def git(*arguments: str) -> str:
    """Standard output of a git command in this repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(revision: str) -> Path:
    """The revision's engine_bench, in a work tree of its own; nothing where it is built."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    tree = FOLDER / commit
    program = tree / "build/release/bench/micro/engine_bench"
    if program.exists():
        return program
    if not tree.exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(tree), commit)
        (tree / ".venv").symlink_to(ROOT / ".venv")
    flags = ["-DPENSTOCK_BUILD_BENCH=ON", f"-DPENSTOCK_OUTPUT_DIR={tree / 'server/penstock'}"]
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    for command in (
        ["cmake", "--preset", "release", *flags],
        ["cmake", "--build", "build/release", "--target", "engine_bench"],
    ):
        environment = {**os.environ, "PATH": path}
        subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL, env=environment)
    return program


def rates(program: Path, pattern: str, seconds: float) -> dict[str, float]:
    """Items per second by benchmark."""
    command = [str(program), f"--benchmark_filter={pattern}", "--benchmark_format=json"]
    command.append(f"--benchmark_min_time={seconds}")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)["benchmarks"]
    return {each["name"]: each["items_per_second"] for each in found if "items_per_second" in each}


def compare(
    base: Path, head: Path, rounds: int, pattern: str, seconds: float = 0.5
) -> dict[str, list[float]]:
    """The ratios of every round, by benchmark."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for round_ in range(rounds):
        order = (base, head) if round_ % 2 == 0 else (head, base)
        measured = {program: rates(program, pattern, seconds) for program in order}
        for name in measured[base].keys() & measured[head].keys():
            ratios[name].append(measured[head][name] / measured[base][name])
    return ratios


def main() -> None:
    """Builds, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a benchmark and round")
    parser.add_argument("--filter", default="BM_(Request|Batcher)")
    args = parser.parse_args()
    base, head = build(args.base), build(args.head)
    ratios = compare(base, head, args.rounds, args.filter, args.seconds)
    if not ratios:
        raise SystemExit(f"no benchmark that both revisions have matches '{args.filter}'")
    for name, values in sorted(ratios.items()):
        middle, low, high = interval(values)
        print(f"{name:40} {middle:.3f} ({low:.3f}..{high:.3f})  {verdict(low, high, len(values))}")


if __name__ == "__main__":
    main()
