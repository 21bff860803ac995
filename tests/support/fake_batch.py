"""A model for batch jobs that answers in this process: no core, no socket."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.jobs.failures import engine_error
from penstock.jobs.job import JobResult, run_job
from penstock.jobs.model import ModelInfo, TensorRows, WireTensor, model_info
from penstock.jobs.planning import JobOptions, plan_job

BAD = 13.0
"""The model refuses requests with a row that begins with it."""

Behaviour = Callable[[Sequence[TensorRows]], None]


def info(
    inputs: Sequence[WireTensor] = (WireTensor("X", "FP32", (-1, 4)),),
    outputs: Sequence[WireTensor] = (WireTensor("Y", "FP32", (-1, 1)),),
    max_batch_size: int = 8,
    version: str = "1",
) -> ModelInfo:
    """A model "m"; X FP32 [4] in and Y FP32 out unless said otherwise."""
    return model_info("m", version, (inputs, outputs), max_batch_size, "digest")


class FakeEngine:
    """Y = twice the first value of X, or the behaviour's exception."""

    def __init__(self, model: ModelInfo | None = None, behaviour: Behaviour | None = None) -> None:
        self.model = model or info()
        self.behaviour = behaviour
        self.rows: list[int] = []

    async def describe(self, model: str, version: str) -> ModelInfo:
        del model, version
        return self.model

    async def infer(self, model: ModelInfo, inputs: Sequence[TensorRows]) -> Mapping[str, Any]:
        del model
        await asyncio.sleep(0)
        values = inputs[0].array()
        self.rows.append(len(values))
        if self.behaviour is not None:
            self.behaviour(inputs)
        if (values[:, 0] == BAD).any():
            raise engine_error(3, "a row begins with 13")
        return {"Y": values[:, :1] * 2}


def write_rows(path: Path, rows: int, *, group: int = 64) -> np.ndarray[Any, Any]:
    """Parquet with X and id; X begins with the row's number plus 100."""
    values = np.zeros((rows, 4), np.float32)
    values[:, 0] = np.arange(rows) + 100
    kind = pa.list_(pa.float32())
    table = pa.table({"id": pa.array(range(rows)), "X": pa.array(values.tolist(), kind)})
    pq.write_table(table, path, row_group_size=group)
    return values


async def run(engine: Any, source: Path | str, output: Path | str, **options: Any) -> JobResult:
    """Plans and runs a job of the model "m"."""
    job = await plan_job(engine, JobOptions("m", str(source), str(output), **options))
    return await run_job(engine, job)


def outputs(folder: Path) -> Any:
    """All parts as one table, in order."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("part-*"))])


def rejects(folder: Path) -> list[dict[str, Any]]:
    """Rejected rows, in order."""
    paths = sorted((folder / "rejects").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]
