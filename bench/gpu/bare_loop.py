"""ONNX Runtime's CUDA provider in a bare loop: what a server can reach at most.

Inputs and outputs stay on the device; one line of JSON for each batch size and number of threads:
first the size that served rates are held against, then that and half of it in turn, which costs
more than each by itself where the engine prepares anew for other rows than the last.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.bars import OPERATIONS, ceiling_table, ceiling_what  # noqa: E402
from gpu.provider import need_cuda_provider, need_gpu, provider  # noqa: E402
from gpu.served import BATCHES, LANES  # noqa: E402

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
THREADS = (1, LANES)
_SHARE_OF_OTHERS = 1 / 3
_ROUNDS = 3
Batch = Callable[[], Any]


def rates(runs: Sequence[Batch], rows: float, seconds: float) -> list[float]:
    """Rows per second of each round, each of `runs` called again and again on its own thread.

    `rows`: of a call, in the mean.
    """
    found = []
    for _ in range(_ROUNDS):
        counts = [0] * len(runs)
        end = time.perf_counter() + seconds / _ROUNDS

        def loop(
            at: int, until: float = end, counts: list[int] = counts
        ) -> None:  # defaults: of this round
            while not counts[at] or time.perf_counter() < until:
                runs[at]()
                counts[at] += 1

        began = time.perf_counter()
        workers = [threading.Thread(target=loop, args=(at,)) for at in range(len(runs))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found.append(rows * sum(counts) / (time.perf_counter() - began))
    return found


def sizes_of(model: str, seconds: float) -> list[tuple[int, float]]:
    """Batch sizes, and how long each is measured: the one of the targets first, others shorter."""
    first = BATCHES.get(model, SIZES[0])
    others = [(size, seconds * _SHARE_OF_OTHERS) for size in SIZES if size != first]
    return [(first, seconds), *others]


def mixture(workload: Any) -> list[int]:
    """For each sample the first one of its shapes: as often as LoadGen asks for them."""
    firsts: dict[tuple[Any, ...], int] = {}
    shapes = [
        tuple(row.shape for row in workload.rows(sample).values())
        for sample in range(workload.size)
    ]
    return [firsts.setdefault(shape, sample) for sample, shape in enumerate(shapes)]


def bound(session: Any, workload: Any, rows: int, device: str = "cuda") -> Batch:
    """Batches of `rows` samples, all of a shape, with inputs and outputs on the device; warm."""
    order = mixture(workload)
    bindings = {sample: _binding(session, workload.rows(sample), rows, device) for sample in order}
    for binding in bindings.values():
        session.run_with_iobinding(binding)
    turns = cycle([bindings[sample] for sample in order])
    return lambda: session.run_with_iobinding(next(turns))


def in_turn(*runs: Batch) -> Batch:
    """One of them each time that it is called, and then the next."""
    turns = cycle(runs)
    return lambda: next(turns)()


def _binding(session: Any, sample: Any, rows: int, device: str) -> Any:
    import numpy as np
    import onnxruntime

    binding = session.io_binding()
    for name, row in sample.items():
        batch = np.ascontiguousarray(np.repeat(row, rows, axis=0))
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(batch, device, 0)
        )
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return binding


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
    session = onnxruntime.InferenceSession(workload.onnx, providers=[provider()])
    need_gpu(session)
    for rows, seconds in sizes_of(args.model, args.seconds):
        runs = [bound(session, workload, rows) for _ in range(max(THREADS))]
        for threads in THREADS:
            found = rates(runs[:threads], rows, seconds)
            print(json.dumps(line(args.model, ceiling_what(rows, threads), found)), flush=True)
        if rows == BATCHES.get(args.model):
            half = rows // 2
            turns = in_turn(runs[0], bound(session, workload, half))
            found = rates([turns], (rows + half) / 2, seconds)
            what = f"batches of {rows} and {half} in turn"
            print(json.dumps(line(args.model, what, found)), flush=True)


def cost(model: str, workload: Any) -> dict[str, Any]:
    """What a sample costs, as a row of the table."""
    from mlperf.accounting import operations_of

    operations = float(operations_of(workload) or 0)
    return {**line(model, OPERATIONS, [operations]), "unit": "operations"}


def line(model: str, what: str, found: list[float]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "table": ceiling_table(model),
        "what": what,
        "unit": "samples/s",
        "median": median(found),
        "least": min(found),
        "greatest": max(found),
    }


if __name__ == "__main__":
    main()
