"""The native benchmarks of bench/micro, with the demo's digits model.

Run: make bench, or .venv/bin/python bench/native.py [--only engine_bench] [Google Benchmark flags]

Every program of build/release/bench/micro runs with five repetitions; Google Benchmark prints mean,
median, standard deviation and coefficient of variation.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import _measure

ROOT = Path(__file__).resolve().parent.parent


def micro_settings(repository: Path) -> dict[str, str]:
    """The environment that the programs want, with the digits model of a repository."""
    found = find_spec("onnxruntime")
    assert found is not None and found.origin is not None
    return {
        **os.environ,
        "PENSTOCK_BENCH_DIGITS": str(repository / "digits" / "1" / "model.onnx"),
        "PENSTOCK_BENCH_ORT": str(Path(found.origin).parent / "capi"),
        "PENSTOCK_BENCH_BACKENDS": str(ROOT / "server" / "penstock" / "backends"),
    }


def main() -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*_bench", help="name of one program")
    args, flags = parser.parse_known_args()
    repeat = ["--benchmark_repetitions=5", "--benchmark_report_aggregates_only=true"]
    with _measure.digits_repository() as repository:
        for program in sorted((ROOT / "build/release/bench/micro").glob(args.only)):
            command = [str(program), *repeat, *flags]
            subprocess.run(command, env=micro_settings(repository), check=True)


if __name__ == "__main__":
    main()
