"""The GPU's measured peak: large matrix products by ONNX Runtime's CUDA provider, torch or CuPy.

In fp32 as the provider computes it, which is in TF32 where the GPU has it, as it does for models;
and in fp16. One line of JSON for each; the table's name says who computed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import leave_out, why_no_cuda_provider  # noqa: E402

SIDE = 8192
PRECISIONS = ("fp32", "fp16")
Maker = Callable[[str], Callable[[], Any]]
"""Makes a run of the product in a precision, which is over when it returns."""


def product(precision: str, side: int = SIDE) -> bytes:
    """a x b, both of `side` x `side`; ONNX."""
    from onnx import TensorProto, helper

    kind = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}[precision]
    shape = [side, side]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info(name, kind, shape) for name in "ab"],
        [helper.make_tensor_value_info("c", kind, shape)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def factors(precision: str, side: int = SIDE) -> list[Any]:
    """a and b: random, since a GPU computes faster with numbers that are all alike."""
    import numpy as np

    random = np.random.default_rng(8)
    kind = {"fp32": np.float32, "fp16": np.float16}[precision]
    return [random.random((side, side), np.float32).astype(kind) for _ in "ab"]


def bound(precision: str, provider: str, device: str, side: int = SIDE) -> Any:
    """A run of the product by ONNX Runtime, with everything on the device."""
    import onnxruntime

    session = onnxruntime.InferenceSession(product(precision, side), providers=[provider])
    binding = session.io_binding()
    for name, values in zip("ab", factors(precision, side), strict=True):
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0)
        )
    binding.bind_output("c", device)
    return lambda: session.run_with_iobinding(binding)


def by_torch(torch: Any, precision: str, device: str = "cuda", side: int = SIDE) -> Any:
    """The same by torch."""
    torch.backends.cuda.matmul.allow_tf32 = True
    a, b = (torch.from_numpy(each).to(device) for each in factors(precision, side))
    c = torch.empty_like(a)

    def run() -> None:
        torch.matmul(a, b, out=c)
        torch.cuda.synchronize()

    return run


def by_cupy(cupy: Any, precision: str, side: int = SIDE) -> Any:
    """The same by CuPy."""
    a, b = (cupy.asarray(each) for each in factors(precision, side))
    c = cupy.empty_like(a)

    def run() -> None:
        cupy.matmul(a, b, out=c)
        cupy.cuda.get_current_stream().synchronize()

    return run


def choose() -> tuple[str, Maker] | str:
    """Who computes, by name, the provider first; or why nobody can."""
    reasons = [why_no_cuda_provider()]
    if not reasons[0]:
        return "ONNX Runtime", lambda precision: bound(precision, "CUDAExecutionProvider", "cuda")
    try:
        torch = import_module("torch")
        if torch.cuda.is_available():
            return "torch", lambda precision: by_torch(torch, precision)
        reasons.append("torch finds no GPU")
    except ImportError:
        reasons.append("torch is not installed")
    os.environ["CUPY_TF32"] = "1"  # read at its import
    try:
        cupy = import_module("cupy")
        if cupy.is_available():
            return "CuPy", lambda precision: by_cupy(cupy, precision)
        reasons.append("CuPy finds no GPU")
    except ImportError:
        reasons.append("CuPy is not installed")
    return ", and ".join(reasons)


def rates(run: Any, seconds: float, side: int = SIDE) -> list[float]:
    """Operations per second of each run, after the first; at least three."""
    run()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        found.append(2 * side**3 / (time.perf_counter() - began))
    return found


def line(precision: str, found: list[float], by: str) -> dict[str, Any]:
    """A row of the table."""
    return {
        "table": f"peak: products of {SIDE} x {SIDE} by {by}",
        "what": precision,
        "unit": "operations/s",
        "median": median(found),
        "least": min(found),
        "greatest": max(found),
    }


def main() -> None:
    """Measures; LEFT_OUT_STATUS where nobody can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    chosen = choose()
    if isinstance(chosen, str):
        leave_out(chosen)
        return
    by, make = chosen
    for precision in PRECISIONS:
        print(json.dumps(line(precision, rates(make(precision), args.seconds), by)), flush=True)


if __name__ == "__main__":
    main()
