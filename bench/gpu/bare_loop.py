"""ONNX Runtime's CUDA provider in a bare loop: what a server can reach at most.

Inputs and outputs stay on the device; one line of JSON for each batch size and number of threads.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import need_cuda_provider  # noqa: E402
from gpu.steps import OPERATIONS  # noqa: E402

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
THREADS = (1, 2)
_ROUNDS = 3


def rates(run: Any, rows: int, threads: int, seconds: float) -> list[float]:
    """Rows per second of each round, `run` called on so many threads at a time."""
    found = []
    for _ in range(_ROUNDS):
        counts = [0] * threads
        end = time.perf_counter() + seconds / _ROUNDS

        def loop(
            at: int, until: float = end, counts: list[int] = counts
        ) -> None:  # defaults: of this round
            while time.perf_counter() < until:
                run()
                counts[at] += 1

        began = time.perf_counter()
        workers = [threading.Thread(target=loop, args=(at,)) for at in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found.append(rows * sum(counts) / (time.perf_counter() - began))
    return found


def bound(session: Any, workload: Any, rows: int) -> Any:
    """A run with inputs of `rows` samples on the device, and outputs left there."""
    import numpy as np
    import onnxruntime

    binding = session.io_binding()
    for name, row in workload.rows(0).items():
        batch = np.ascontiguousarray(np.repeat(row, rows, axis=0))
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(batch, "cuda", 0)
        )
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return lambda: session.run_with_iobinding(binding)


def main() -> None:
    """Measures; LEFT_OUT_STATUS where a package is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    need_cuda_provider()
    import onnxruntime
    from mlperf.workloads import WORKLOADS

    workload = WORKLOADS[args.model]()
    print(json.dumps(cost(args.model, workload)), flush=True)
    session = onnxruntime.InferenceSession(workload.onnx, providers=["CUDAExecutionProvider"])
    for rows in BATCHES:
        run = for_threads(session, workload, rows)
        run()
        for threads in THREADS:
            found = rates(run, rows, threads, args.seconds)
            print(json.dumps(line(args.model, rows, threads, found)), flush=True)


def cost(model: str, workload: Any) -> dict[str, Any]:
    """What a sample costs, as a row of the table."""
    from mlperf.accounting import operations_of

    operations = float(operations_of(workload) or 0)
    return {**line(model, 0, 0, [operations]), "what": OPERATIONS, "unit": "operations"}


def for_threads(session: Any, workload: Any, rows: int) -> Any:
    """The same for any thread: each has a binding of its own."""
    local = threading.local()

    def run() -> None:
        if not hasattr(local, "run"):
            local.run = bound(session, workload, rows)
        local.run()

    return run


def line(model: str, rows: int, threads: int, found: list[float]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "table": f"{model}: the CUDA provider alone",
        "what": f"batches of {rows}, {threads} at a time",
        "unit": "samples/s",
        "median": median(found),
        "least": min(found),
        "greatest": max(found),
    }


if __name__ == "__main__":
    main()
