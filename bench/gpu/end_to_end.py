"""The whole server on a GPU, with models of our own kernel: python -m bench.gpu.end_to_end --help.

What is served is y = 2x + b + the row's number, n = the row's number (csrc/testing/fake_plan.h), by
the plug-in penstock_gpu_fixture in the worker process of the GPU, which is called by CUDA's runtime
and by the driver alone, in turn. No engine is needed: CUDA's compiler has built it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.running import IMPORTS, ROOT  # noqa: E402
from gpu.step import LEFT_OUT_STATUS  # noqa: E402
from gpu.table import Row  # noqa: E402

PLUGINS = ROOT / "build" / "gpu" / "testing" / "gpu"


def main() -> int:
    """Prints figures, a line of JSON each, and notes, "- " each; the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("serve", "fault", "memory"))
    parser.add_argument("--plugins", type=Path, default=PLUGINS, help="folder of the plug-in")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measurement")
    parser.add_argument("--apis", default="runtime,driver", help="how CUDA is called")
    args = parser.parse_args()
    sys.path[:0] = IMPORTS
    try:
        from gpu import row_parts
    except ImportError as error:
        print(f"{error.name} is not installed")
        return LEFT_OUT_STATUS
    part: Callable[[row_parts.Settings], Iterator[Row | str]] = getattr(row_parts, args.part)
    settings = row_parts.Settings(args.plugins, tuple(args.apis.split(",")), args.seconds)
    try:
        for found in part(settings):
            print(json.dumps(asdict(found)) if isinstance(found, Row) else f"- {found}", flush=True)
    except row_parts.WrongError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
