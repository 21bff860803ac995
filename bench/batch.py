"""Batch prediction from Parquet against the engine alone, interleaved in one run.

Run: .venv/bin/python bench/batch.py [--rounds 5] [--rows 1000000] [--wide-rows 160]

Two models: the demo's digits classifier (rows of 256 bytes), and ResNet-50 in FP32 (rows of 600
KB). For each, in one process with one core: the engine alone is the job's own requests, made
beforehand, with as many in flight; then the whole job runs, from Parquet to Parquet. Prints rows
per second of both, the ratio of each round, and that of the CPU time, which other work on the
machine disturbs less. Every row of each job must have been answered.

In each round of digits micro/engine_bench runs, too, if `make bench` has built it: batcher and
engine in process with one-row requests, 64 in flight, which is what the budget of one-row requests
is of. The job has requests of as many rows as the model takes, so that it has two ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
from _measure import Spread, digits_repository

from native import micro_settings
from penstock.batch import local_engine
from penstock.config import ServerConfig
from penstock.jobs.job import run_job
from penstock.jobs.model import TensorRows
from penstock.jobs.pieces import Cut, pieces
from penstock.jobs.planning import JobOptions, PlannedJob, plan_job
from penstock.jobs.requests import requests_of

ENGINE_BENCH = Path(__file__).resolve().parents[1] / "build/release/bench/micro/engine_bench"
WIDE = "resnet_f32"
WIDE_VALUES = 3 * 224 * 224
STREAMS = """
parameters {{ key: "NUM_STREAMS" value: {{ string_value: "{count}" }} }}
instance_group {{ count: {count} kind: KIND_CPU }}
"""


def write_digits(path: Path, rows: int) -> None:
    """Rows as the classifier takes them, in row groups of 128 Ki rows."""
    from penstock.commands import _demo_model

    images = _demo_model.train().images
    values = np.resize(images, (rows, images.shape[1])).ravel()
    offsets = np.arange(0, len(values) + 1, images.shape[1], dtype=np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    table = pa.table({"id": pa.array(np.arange(rows)), "X": column})
    pq.write_table(table, path, row_group_size=1 << 17)


def write_wide(path: Path, rows: int) -> None:
    """Rows of 600 KB, in row groups of 64 rows."""
    random = np.random.default_rng(7)
    kind = pa.list_(pa.float32())
    with pq.ParquetWriter(path, pa.schema([("image", kind)])) as writer:
        for start in range(0, rows, 64):
            count = min(64, rows - start)
            values = random.random(count * WIDE_VALUES, dtype=np.float32)
            offsets = np.arange(0, len(values) + 1, WIDE_VALUES, dtype=np.int32)
            column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
            writer.write_table(pa.table({"image": column}))


def write_wide_model(root: Path) -> None:
    """ResNet-50 in FP32 with seeded random weights, run by OpenVINO, a core to a stream.

    So it does most on the whole; and what a reader takes of a core is one stream's time, not that
    of all who would wait for it within a batch.
    """
    import openvino as ov
    from openvino_serving import CONFIG, resnet50

    (root / WIDE / "1").mkdir(parents=True)
    ov.save_model(resnet50(), root / WIDE / "1" / "model.xml", compress_to_fp16=False)
    streams = STREAMS.format(count=len(os.sched_getaffinity(0)))
    config = CONFIG.format(rows=8, precision="f32") + streams
    (root / WIDE / "config.pbtxt").write_text(config)


def all_requests(job: PlannedJob) -> Iterator[tuple[int, list[TensorRows]]]:
    """The job's requests: rows and tensors."""
    cut = Cut(job.sizes.part_rows, lambda part: True, None, job.sizes.request_rows)
    names = [column.name for column in job.plan.columns]
    blocks = job.source.blocks(names, cut.skips, job.sizes.block_rows)
    for piece in pieces(blocks, job.plan, cut):
        for each in requests_of(piece, job.sizes.request_rows):
            inputs = [tensor.slice(each.start, each.stop) for tensor in each.run.inputs]
            yield each.stop - each.start, inputs


async def engine_rate(engine: Any, job: PlannedJob, rows: int) -> float:
    """Rows per second of the core alone: its own bytes in, its own bytes out."""
    model = job.plan.model
    held = 64 << 20  # of requests, sent over and over
    some = list(islice(all_requests(job), max(4, held // (job.sizes.request_rows * 256))))
    some = some[: max(4, held // sum(each.raw().nbytes for each in some[0][1]))]
    encoded = [(count, engine._request(model, inputs)) for count, inputs in some]
    sent = 0

    async def work() -> None:
        nonlocal sent
        at = 0
        while sent < rows:
            count, request = encoded[at % len(encoded)]
            at += 1
            sent += count
            await engine._core.infer(request)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(job.sizes.in_flight)))
    return sent / (time.perf_counter() - began)


def one_row_rate(root: Path) -> float | None:
    """Rows per second of engine_bench's one-row requests, 64 in flight; None: it is not built."""
    if not ENGINE_BENCH.exists():
        return None
    command = [
        str(ENGINE_BENCH),
        "--benchmark_filter=BM_Digits/window:64",
        "--benchmark_format=json",
    ]
    done = subprocess.run(command, env=micro_settings(root), capture_output=True, check=True)
    (found,) = json.loads(done.stdout)["benchmarks"]
    return float(found["items_per_second"])


async def measure(root: Path, model: str, source: Path, rounds: int) -> None:
    """Prints what each did, and the ratios."""
    config = ServerConfig(model_repository=(root,))
    rows = pq.ParquetFile(source).metadata.num_rows
    alone: list[float] = []
    whole: list[float] = []
    cpu: list[float] = []
    one_row: list[float] = []
    async with local_engine(config, model, 60.0) as engine:
        options = JobOptions(model, str(source), str(root / f".{model}-out"))
        for _ in range(rounds):
            job = await plan_job(engine, replace(options, overwrite=True))
            used = [time.process_time()]
            alone.append(await engine_rate(engine, job, rows))
            used.append(time.process_time())
            result = await run_job(engine, job)
            used.append(time.process_time())
            cpu.append((used[2] - used[1]) / (used[1] - used[0]))
            if (result.rows_out, result.rows_rejected) != (rows, 0):
                raise SystemExit(f"{model}: {result}")
            whole.append(rows / result.seconds)
            shutil.rmtree(root / f".{model}-out")
            if model == "digits" and (rate := await asyncio.to_thread(one_row_rate, root)):
                one_row.append(rate)
    print(f"{model}: {rows} rows, {job.sizes}")
    show("batch job", "rows/s", whole)
    what = f"engine alone, requests of {job.sizes.request_rows}"
    show(what, "rows/s", alone)
    show(f"  ratio, job to {what}", "", ratios(whole, alone))
    show("  ratio of CPU time", "", cpu)
    if one_row:
        what = "engine alone, one-row requests"
        show(what, "rows/s", one_row)
        show(f"  ratio, job to {what}", "", ratios(whole, one_row))
    elif model == "digits":
        print("  engine alone, one-row requests: not built (make bench)", flush=True)


def ratios(values: list[float], others: list[float]) -> list[float]:
    """Of each round."""
    return [value / other for value, other in zip(values, others, strict=True)]


def show(what: str, unit: str, values: list[float]) -> None:
    """A line."""
    print(f"  {what:<50} {Spread(tuple(values))} {unit}".rstrip(), flush=True)


def main() -> None:
    """Both models."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--wide-rows", type=int, default=160)
    asked = parser.parse_args()
    with digits_repository() as root, tempfile.TemporaryDirectory() as folder:
        write_wide_model(root)
        for model, write, rows in (
            ("digits", write_digits, asked.rows),
            (WIDE, write_wide, asked.wide_rows),
        ):
            source = Path(folder, f"{model}.parquet")
            write(source, rows)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(root, model, source, asked.rounds))


if __name__ == "__main__":
    main()
