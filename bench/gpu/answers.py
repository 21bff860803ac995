"""A model's answers by ONNX Runtime's CUDA provider, against those of the CPU.

Within 1e-3 in full precision and within served.TF32_TOLERANCE in TF32, as allowances are meant
everywhere here: |answer - expected| <= tolerance * (1 + |expected|). One line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import need_cuda_provider, need_gpu, provider  # noqa: E402
from gpu.served import TF32_TOLERANCE  # noqa: E402

CASES = (("use_tf32=0", "0", 1e-3), ("use_tf32=1", "1", TF32_TOLERANCE))
_SAMPLES = 16


def greatest_difference(workload: Any, session: Any, samples: Sequence[int]) -> float:
    """To the CPU's answers, relative and absolute: |answer - expected| / (1 + |expected|)."""
    import numpy as np
    import onnxruntime

    on_cpu = onnxruntime.InferenceSession(workload.onnx, providers=["CPUExecutionProvider"])
    greatest = 0.0
    for sample in samples:
        answer, expected = (
            each.run([workload.answer], workload.rows(sample))[0] for each in (session, on_cpu)
        )
        if answer.shape != expected.shape or not np.isfinite(answer).all():
            return float("inf")
        off = np.abs(answer - expected) / (1 + np.abs(expected))
        greatest = max(greatest, float(off.max()))
    return greatest


def line(model: str, what: str, tolerance: float, found: float) -> dict[str, Any]:
    """A row of the table."""
    values = dict.fromkeys(("median", "least", "greatest"), found)
    what = f"{what}, at most {tolerance:g}"
    return {"table": f"{model}: answers beside the CPU's", "what": what, "unit": "off", **values}


def main() -> None:
    """Compares; 1 where a difference is too large, LEFT_OUT_STATUS where a package is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    need_cuda_provider()
    import onnxruntime
    from mlperf.workloads import WORKLOADS

    workload = WORKLOADS[args.model]()
    wrong = []
    for what, tf32, tolerance in CASES:
        session = onnxruntime.InferenceSession(
            workload.onnx, providers=[provider(use_tf32=tf32), "CPUExecutionProvider"]
        )
        need_gpu(session)
        found = greatest_difference(workload, session, range(min(_SAMPLES, workload.size)))
        print(json.dumps(line(args.model, what, tolerance, found)), flush=True)
        if found > tolerance:
            wrong.append(f"{args.model}, {what}: off by {found:.3g}")
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
