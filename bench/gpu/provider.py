"""ONNX Runtime's CUDA provider: whether it is there, and what it is told."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from gpu.step import LEFT_OUT_STATUS

SERVERS_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
"""What the server tells the provider unless a model says otherwise: so that both run the same."""


def provider(**options: str) -> tuple[str, dict[str, Any]]:
    """The provider as the server has it, for a session's `providers`."""
    return "CUDAExecutionProvider", {**SERVERS_OPTIONS, **options}


def why_no_cuda_provider() -> str:
    """Why models cannot run on a GPU here; "" where they can."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "ONNX Runtime has no CUDA provider here: install onnxruntime-gpu"
    return ""


def need_gpu(session: Any) -> None:
    """Ends the program where the session fell back to the CPU, which ONNX Runtime only logs."""
    if "CUDAExecutionProvider" not in session.get_providers():
        sys.exit("ONNX Runtime could not load its CUDA provider: its log says why")


def leave_out(reason: str) -> None:
    """Ends the program: what it needs is not here."""
    print(reason)
    sys.exit(LEFT_OUT_STATUS)


def need_cuda_provider() -> None:
    """Ends the program with LEFT_OUT_STATUS and one line where something is missing."""
    if reason := why_no_cuda_provider():
        leave_out(reason)
    need_modules("mlperf.workloads")


def need_modules(*names: str) -> None:
    """Imports them; ends the program likewise where what one of them needs is missing."""
    try:
        for name in names:
            import_module(name)
    except ImportError as error:
        leave_out(f"{error.name} is not installed")
