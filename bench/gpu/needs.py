"""Which packages that steps need are not on this machine, and what that costs.

One line for each, "- " before it. Nothing large is imported: a package that is there and does not
work is the affair of the step.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import why_no_cuda_provider  # noqa: E402

_SERVED = "offline, grpc and server will be left out"
_MODELS = "answers, ceiling, offline, grpc and server will be left out"
PACKAGES = (
    ("mlperf_loadgen", "LoadGen (mlcommons-loadgen)", _SERVED),
    ("tritonclient", "tritonclient", _MODELS),
    ("rapidjson", "python-rapidjson (of tritonclient)", _MODELS),
    ("onnx", "onnx", _MODELS),
    ("ml_dtypes", "ml-dtypes (of onnx)", _MODELS),
    ("cupy", "CuPy", "client will be left out, and of serve the tensors in the GPU's memory"),
    ("torch", "torch", "tensors of torch will be left out of client and serve"),
)
"""Module, what it is called, and what becomes of the steps without it."""


def is_there(module: str) -> bool:
    """Whether it could be imported."""
    return importlib.util.find_spec(module) is not None


def missing(
    has: Callable[[str], bool] = is_there, why: Callable[[], str] = why_no_cuda_provider
) -> Iterator[str]:
    """What is not there, a sentence each."""
    if reason := why():
        yield f"{reason}; {_MODELS}"
    for module, name, cost in PACKAGES:
        if not has(module):
            yield f"{name} is not installed; {cost}"


if __name__ == "__main__":
    for sentence in missing():
        print(f"- {sentence}", flush=True)
