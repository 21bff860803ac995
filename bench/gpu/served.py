"""bench.mlperf with its models on the GPU: python -m bench.gpu.served --help."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import need_cuda_provider, need_modules  # noqa: E402

if TYPE_CHECKING:
    from mlperf.workloads import Workload

BATCHES = {"resnet50": 128, "bert": 64}
"""Rows of a batch, as a GPU wants them; `ceiling` measures those, too."""
LANES = 2
"""Of a model: as many as the bare loop has threads, so that both have as much to overlap."""
_UNDER_WAY = 2 * LANES  # batches: a lane has two slots, and the server an instance for each
TF32_TOLERANCE = 2e-2
"""Of what the provider computes in TF32, its default, against the CPU: 10 bits of mantissa."""


def ranges_of(workload: Workload) -> dict[str, str]:
    """LEAST:LIKELY:GREATEST of a row, of each input whose samples differ in shape."""
    ranges = {}
    for name, values in workload.inputs.items():
        if isinstance(values, list):
            rows = [value.shape[1:] for value in values]
            least, most = (
                "x".join(str(limit(sizes)) for sizes in zip(*rows, strict=True))
                for limit in (min, max)
            )
            ranges[name] = f"{least}:{most}:{most}"
    return ranges


def window_of(workload: Workload, batch: int) -> int:
    """Samples that are under way in Offline, so that whichever batch begins next is full.

    For each batch under way one more; and three more where lengths differ: those of one length
    share no batch with those of another, so they wait for theirs to be many.
    """
    return _UNDER_WAY * batch * (4 if ranges_of(workload) else 2)


def on_gpu(workload: Workload) -> Workload:
    """The same on a GPU: its configuration, its batches, and TF32's tolerance."""
    parameters = {"lanes": str(LANES)}
    parameters |= {f"shape:{name}": shapes for name, shapes in ranges_of(workload).items()}
    lines = ["instance_group { kind: KIND_GPU gpus: [0] }"]
    for name, value in parameters.items():
        lines.append(f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}')
    batch = BATCHES.get(workload.name, workload.max_batch_size)
    return replace(
        workload,
        config="".join(f"{line}\n" for line in lines),
        max_batch_size=batch,
        window=window_of(workload, batch),
        tolerance=TF32_TOLERANCE,
    )


def main() -> None:
    """Runs bench.mlperf; its status, or LEFT_OUT_STATUS where a package is missing."""
    need_cuda_provider()
    need_modules("mlperf.cli")  # wants LoadGen
    from mlperf import cli

    cli.main(on_gpu)


if __name__ == "__main__":
    main()
