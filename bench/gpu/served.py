"""bench.mlperf with its models on the GPU: python -m bench.gpu.served --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.steps import LEFT_OUT_STATUS  # noqa: E402

ON_GPU = "instance_group { kind: KIND_GPU }\n"


def main() -> None:
    """Runs bench.mlperf; its status, or LEFT_OUT_STATUS where a package is missing."""
    try:
        import onnxruntime
        from mlperf import cli, workloads
    except ImportError as error:
        print(f"{error.name} is not installed")
        sys.exit(LEFT_OUT_STATUS)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("ONNX Runtime has no CUDA provider here: install onnxruntime-gpu")
        sys.exit(LEFT_OUT_STATUS)
    workloads.CONFIG += ON_GPU
    cli.main()


if __name__ == "__main__":
    main()
