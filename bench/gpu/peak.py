"""The GPU's measured peak: large matrix products by ONNX Runtime's CUDA provider.

In fp32 as the provider computes it, which is in TF32 where the GPU has it, as it does for models;
and in fp16. One line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import need_cuda_provider  # noqa: E402

SIDE = 8192
PRECISIONS = ("fp32", "fp16")


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


def bound(precision: str, provider: str, device: str, side: int = SIDE) -> Any:
    """A run of the product with everything on the device."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(product(precision, side), providers=[provider])
    values = np.ones((side, side), {"fp32": np.float32, "fp16": np.float16}[precision])
    binding = session.io_binding()
    for name in "ab":
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0)
        )
    binding.bind_output("c", device)
    return lambda: session.run_with_iobinding(binding)


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


def line(precision: str, found: list[float]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "table": f"peak: products of {SIDE} x {SIDE}",
        "what": precision,
        "unit": "operations/s",
        "median": median(found),
        "least": min(found),
        "greatest": max(found),
    }


def main() -> None:
    """Measures; LEFT_OUT_STATUS where a package is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    need_cuda_provider()
    for precision in PRECISIONS:
        run = bound(precision, "CUDAExecutionProvider", "cuda")
        print(json.dumps(line(precision, rates(run, args.seconds))), flush=True)


if __name__ == "__main__":
    main()
