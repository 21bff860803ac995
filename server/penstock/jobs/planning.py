"""Everything of a job that is decided before its first row."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.jobs import formats, writers
from penstock.jobs.failures import PlanError
from penstock.jobs.images import image_rows
from penstock.jobs.ledger import MOST_PARTS
from penstock.jobs.model import Engine, ModelInfo, numpy_types
from penstock.jobs.overlap import overlap
from penstock.jobs.plan import Plan, PlanOptions, make_plan, wanted_type
from penstock.jobs.source import ReadOptions, Source, open_source
from penstock.jobs.storage import find_files

_BLOCK_BYTES = 8 << 20
_PART_BYTES = 256 << 20
_IN_FLIGHT_BYTES = 64 << 20
_MOST_BLOCK_ROWS = 16384
_MOST_PART_ROWS = 1 << 20
_MOST_IN_FLIGHT = 16
_LIMIT_IN_FLIGHT = 1024
_FREE_ROW_BYTES = 1024
"""What a row of unknown size is taken for."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What is asked of a job.

    Attributes:
        model: name of the model.
        input_uri: a file, a directory or a pattern.
        output_uri: a directory.
        version: of the model; "" = the one served by default, which then stays the same.
        input_format: "" = by the suffixes.
        output_format: "" = the input's, or parquet where that cannot be written.
        maps: columns by tensor, where the names differ or several make one.
        key: column that is carried, and named with rejects; "" = none.
        keep: further columns to carry.
        may_round: floats may be rounded to the tensor's type.
        scale: what pixels of images are multiplied with.
        request_rows: rows per request; 0 = as many as the model takes. Where the model's requests
            are bounded there are no more than that.
        in_flight: requests at a time, at most 1024; 0 = as many as fit 64 MiB, at most 16.
        part_rows: input rows per output part, so that there are at most 100000; 0 = as many as take
            about 256 MiB, inputs and outputs.
        limit: rows of the input that count; None = all.
        max_rejects: more rejects stop the job; None = no limit.
        retry_s: how long a request is tried anew before the job stops.
        resume: go on where an earlier run was; if not, begin anew.
        overwrite: replace the outputs of another job.
        shard: index and count: only every count-th part is done here.
    """

    model: str
    input_uri: str
    output_uri: str
    version: str = ""
    input_format: str = ""
    output_format: str = ""
    maps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    key: str = ""
    keep: tuple[str, ...] = ()
    may_round: bool = False
    scale: float = 1.0
    request_rows: int = 0
    in_flight: int = 0
    part_rows: int = 0
    limit: int | None = None
    max_rejects: int | None = None
    retry_s: float = 60.0
    resume: bool = True
    overwrite: bool = False
    shard: tuple[int, int] = (0, 1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How rows are grouped."""

    request_rows: int
    in_flight: int
    block_rows: int
    part_rows: int


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that may begin.

    Attributes:
        options: what was asked.
        plan: what each row goes through.
        source: the rows.
        output_format: of the parts.
        sizes: how rows are grouped.
        identity: what makes it this job and no other: outputs of another are not gone on with.
    """

    options: JobOptions
    plan: Plan
    source: Source
    output_format: str
    sizes: Sizes
    identity: dict[str, Any]

    @property
    def rows(self) -> int | None:
        """Input rows that count; None = not known before they are read."""
        total, limit = self.source.rows, self.options.limit
        if total is None or limit is None:
            return total
        return min(total, limit)


async def plan_job(engine: Engine, options: JobOptions) -> PlannedJob:
    """Checks everything that can be checked before the first row.

    Raises:
        PlanError: a line for every problem.
        JobError: the model cannot be asked about.
    """
    model = await engine.describe(options.model, options.version)
    return await asyncio.to_thread(_plan, model, options)


def _plan(model: ModelInfo, options: JobOptions) -> PlannedJob:
    source = open_source(options.input_uri, options.input_format, _reading(model, options))
    plan = make_plan(
        model,
        source.columns,
        PlanOptions(
            options.maps,
            options.key,
            options.keep,
            options.may_round,
            source.format in formats.TEXT_FORMATS,
        ),
    )
    if fault := overlap(options.input_uri, source.files, options.output_uri):
        raise PlanError(fault)
    output_format = options.output_format or _default_format(source.format, plan)
    faults = writers.schema_faults(output_format, plan.schema)
    if model.max_batch_size == 0 and options.request_rows > 1:
        faults.append(f"model '{model.name}' does not batch: a request is one row")
    if options.request_rows > model.max_batch_size > 0:
        faults.append(
            f"{options.request_rows} rows per request are more than model '{model.name}' takes: "
            f"{model.max_batch_size}"
        )
    faults += _option_faults(options)
    if faults:
        raise PlanError(*faults)
    sizes = _sizes(plan, options)
    identity = _identity(plan, source, options, output_format, sizes)
    job = PlannedJob(options, plan, source, output_format, sizes, identity)
    if job.rows is not None and job.rows > sizes.part_rows * MOST_PARTS:
        raise PlanError(
            f"{job.rows} rows in parts of {sizes.part_rows} are more than {MOST_PARTS} parts"
        )
    return job


def _option_faults(options: JobOptions) -> list[str]:
    """Numbers that nothing could be done with; callers over a network send any."""
    limits = (
        ("requests in flight", options.in_flight, _LIMIT_IN_FLIGHT),
        ("rows per request", options.request_rows, _MOST_PART_ROWS),
        ("rows per part", options.part_rows, 1 << 40),
    )
    return [
        f"{given} {what}: expected 0 to {most}"
        for what, given, most in limits
        if not 0 <= given <= most
    ]


def _reading(model: ModelInfo, options: JobOptions) -> ReadOptions:
    """As which types text is read, and what an array or image is for."""
    types = {}
    for tensor in model.inputs:
        columns = options.maps.get(tensor.name, (tensor.name,))
        kind = wanted_type(tensor)
        for _ in tensor.shape if len(columns) > 1 else ():
            kind = kind.value_type
        types.update(dict.fromkeys(columns, kind))
    sole = model.inputs[0].name if len(model.inputs) == 1 else ""
    images = None
    if options.input_format == "images" or _looks_like_images(options.input_uri):
        images = image_rows(model, options.scale)
    return ReadOptions(types=types, image_rows=images, sole_input=sole)


def _looks_like_images(uri: str) -> bool:
    _, files = find_files(uri)
    return any(formats.format_of(file.path) == "images" for file in files)


def _default_format(input_format: str, plan: Plan) -> str:
    if input_format in writers.SUFFIXES and not writers.schema_faults(input_format, plan.schema):
        return input_format
    return "parquet"


def row_bytes(plan: Plan) -> int:
    """About what a row of tensors takes, inputs and outputs."""
    total = 0
    for tensor in (*(binding.tensor for binding in plan.bindings), *plan.model.outputs):
        dtype = numpy_types().get(tensor.datatype)
        if dtype is None or -1 in tensor.wire_shape:
            total += _FREE_ROW_BYTES
        else:
            total += math.prod(tensor.wire_shape) * dtype.itemsize
    return max(total, 1)


def _sizes(plan: Plan, options: JobOptions) -> Sizes:
    size = row_bytes(plan)
    request_rows = options.request_rows or max(1, plan.model.max_batch_size)
    block_rows = _rounded(min(_BLOCK_BYTES // size, _MOST_BLOCK_ROWS), request_rows)
    part_rows = options.part_rows or _rounded(min(_PART_BYTES // size, _MOST_PART_ROWS), block_rows)
    # Parts go by what was asked for: a job goes on under another bound than it began with.
    sent_rows = min(request_rows, plan.model.most_request_rows or request_rows)
    room = _IN_FLIGHT_BYTES // (size * sent_rows)
    in_flight = options.in_flight or max(2, min(room, _MOST_IN_FLIGHT))
    return Sizes(sent_rows, in_flight, min(block_rows, part_rows), part_rows)


def _rounded(rows: int, to: int) -> int:
    return max(1, rows // to) * to


def _identity(
    plan: Plan, source: Source, options: JobOptions, output_format: str, sizes: Sizes
) -> dict[str, Any]:
    model = plan.model
    return {
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
        "input": {"format": source.format, "files": len(source.files), "digest": source.digest()},
        "inputs": {each.tensor.name: list(each.columns) for each in plan.bindings},
        "output": {
            "format": output_format,
            "schema": [[field.name, str(field.type)] for field in plan.schema],
        },
        "key": plan.key,
        "round": options.may_round,
        "scale": options.scale,
        "limit": options.limit,
        "part_rows": sizes.part_rows,
        "shards": options.shard[1],
    }
