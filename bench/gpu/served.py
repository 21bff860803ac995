"""bench.mlperf with its models on the GPU: python -m bench.gpu.served --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import need_cuda_provider  # noqa: E402

ON_GPU = "instance_group { kind: KIND_GPU }\n"


def main() -> None:
    """Runs bench.mlperf; its status, or LEFT_OUT_STATUS where a package is missing."""
    need_cuda_provider()
    from mlperf import cli, workloads

    workloads.CONFIG += ON_GPU
    cli.main()


if __name__ == "__main__":
    main()
