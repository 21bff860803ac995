"""What the programs that run ONNX Runtime on a GPU need to be there."""

from __future__ import annotations

import sys

from gpu.steps import LEFT_OUT_STATUS


def need_cuda_provider() -> None:
    """Ends the program with LEFT_OUT_STATUS and one line where something is missing."""
    try:
        import mlperf.workloads  # noqa: F401
        import onnxruntime
    except ImportError as error:
        print(f"{error.name} is not installed")
        sys.exit(LEFT_OUT_STATUS)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("ONNX Runtime has no CUDA provider here: install onnxruntime-gpu")
        sys.exit(LEFT_OUT_STATUS)
