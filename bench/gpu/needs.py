"""Which packages that steps need are not on this machine, and what that costs.

One line for each, "- " before it. Only onnxruntime is imported, which says what it was built with;
a package that is there and does not work is the affair of the step.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import why_no_cuda_provider  # noqa: E402

_SERVED = ("offline", "grpc", "server")
_MODELS = ("answers", "ceiling", *_SERVED)
PACKAGES: tuple[tuple[str, str, Sequence[str], str], ...] = (
    ("mlperf_loadgen", "LoadGen (mlcommons-loadgen)", _SERVED, ""),
    ("tritonclient", "tritonclient", _MODELS, ""),
    ("rapidjson", "python-rapidjson (of tritonclient)", _MODELS, ""),
    ("onnx", "onnx", _MODELS, ""),
    ("ml_dtypes", "ml-dtypes (of onnx)", _MODELS, ""),
    ("cupy", "CuPy", ("client",), "and of serve the tensors in the GPU's memory"),
    ("torch", "torch", (), "tensors of torch will be left out of client and serve"),
)
"""Module, what it is called, the steps that are left out without it, and what else is."""


def is_there(module: str) -> bool:
    """Whether it could be imported."""
    return importlib.util.find_spec(module) is not None


def missing(
    has: Callable[[str], bool] = is_there, why: Callable[[], str] = why_no_cuda_provider
) -> Iterator[str]:
    """What is not there, a sentence each."""
    if reason := why():
        yield f"{reason}; {left_out(_MODELS)}, and peak, unless torch or CuPy computes it"
    for module, name, steps, more in PACKAGES:
        if not has(module):
            cost = ", ".join(filter(None, [left_out(steps), more]))
            yield f"{name} is not installed; {cost}"


def left_out(steps: Sequence[str]) -> str:
    """In words; of none: nothing."""
    *others, last = steps or ("",)
    named = f"{', '.join(others)} and {last}" if others else last
    return f"{named} will be left out" if named else ""


if __name__ == "__main__":
    for sentence in missing():
        print(f"- {sentence}", flush=True)
