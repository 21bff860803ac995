"""A job that is planned, from where an earlier run left it to its manifest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from penstock import __version__
from penstock.jobs.failures import JobError, PlanError, StoppedError
from penstock.jobs.ledger import (
    LOCK_PREFIX,
    MANIFEST,
    WORK,
    Ledger,
    PartRecord,
    differences,
    totals,
)
from penstock.jobs.model import Engine
from penstock.jobs.parts import REJECTS, PartOptions, PartWriter
from penstock.jobs.pieces import Cut, pieces
from penstock.jobs.planning import PlannedJob
from penstock.jobs.requests import Sender
from penstock.jobs.runner import Runner
from penstock.jobs.storage import Storage, only_one

_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: rows of parts done earlier included.

    Attributes:
        rows: input rows that are done.
        rejected: those of them that were rejected.
        total: all of them; None = unknown.
        resumed: rows that an earlier run had done.
    """

    rows: int = 0
    rejected: int = 0
    total: int | None = None
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended well.

    Attributes:
        state: done; nothing was left to do; or this shard is done and others are not.
        rows_in: input rows of the whole output; of the shard where others are not done.
        rows_out: rows that were answered.
        rows_rejected: rows that were not.
        resumed_rows: input rows that earlier runs had done.
        parts: output files.
        seconds: of this run.
        manifest: where it is; "" while other shards are not done.
    """

    state: Literal["done", "already done", "shard done"]
    rows_in: int
    rows_out: int
    rows_rejected: int
    resumed_rows: int
    parts: int
    seconds: float
    manifest: str


OnProgress = Callable[[Progress], None]


RunMissing = Callable[[PlannedJob, Mapping[int, PartRecord]], Awaitable[Sequence[PartRecord]]]
"""Does the parts of a job that are not committed yet, and returns them."""


async def run_job(
    engine: Engine, job: PlannedJob, on_progress: OnProgress = lambda progress: None
) -> JobResult:
    """Does what is left of a job.

    Args:
        engine: what answers.
        job: as planned with the same engine.
        on_progress: called on the loop as parts grow.

    Raises:
        JobError: why the job stopped; what is committed stays, and a further run goes on from it.
    """

    async def run_missing(job: PlannedJob, done: Mapping[int, PartRecord]) -> Sequence[PartRecord]:
        def is_wanted(part: int) -> bool:
            return part not in done and _is_mine(job, part)

        return await run_parts(engine, job, done, is_wanted, on_progress)

    return await run_job_by(run_missing, job)


async def run_job_by(run_missing: RunMissing, job: PlannedJob) -> JobResult:
    """`run_job`, where the parts are done by something else."""
    began = time.monotonic()
    storage = Storage(job.options.output_uri)
    with ExitStack() as stack:
        done = await asyncio.to_thread(_begin, job, storage, stack)
        if done is not None:
            return _finished("already done", storage, done, time.monotonic() - began)
        parts = await asyncio.to_thread(_committed, storage, Ledger(storage))
        mine = {n: part for n, part in parts.items() if _is_mine(job, n)}
        resumed = totals(mine.values())["rows_in"]
        mine.update((part.number, part) for part in await run_missing(job, mine))
        result = await asyncio.to_thread(_finish, job, storage, mine, began)
        return replace(result, resumed_rows=resumed)


def _finished(
    state: Literal["done", "already done"],
    storage: Storage,
    manifest: Mapping[str, Any],
    seconds: float,
) -> JobResult:
    counts = manifest["counts"]
    return JobResult(
        state,
        counts["rows_in"],
        counts["rows_out"],
        counts["rows_rejected"],
        counts["rows_in"] if state == "already done" else 0,
        len(manifest["outputs"]),
        seconds,
        f"{storage.uri}/{MANIFEST}",
    )


def _begin(job: PlannedJob, storage: Storage, stack: ExitStack) -> dict[str, Any] | None:
    """Makes the output this job's, or finds that it is; keeps others from this shard.

    Returns:
        The manifest where nothing is left to do.

    Raises:
        PlanError: it is another job's.
        BusyError: another process is at it.
    """
    ledger, options = Ledger(storage), job.options
    with only_one(storage, _LOCK, wait=True):
        if ledger.has_foreign_parts() and not options.overwrite:
            raise PlanError(f"{storage.uri} holds parts of no known job; --overwrite replaces them")
        if ledger.is_clearing():
            _clear(storage, ledger)
        manifest = ledger.manifest()
        found = manifest["job"] if manifest is not None else ledger.job()
        is_ours = found == job.identity
        # A shard that finds its own job leaves alone what the others have done.
        starts_over = not options.resume and options.shard[1] == 1
        if manifest is not None and is_ours and not starts_over:
            return manifest
        if found is not None and not is_ours and not options.overwrite:
            raise PlanError(
                f"{storage.uri} holds outputs of another job; --overwrite replaces them",
                *differences(job.identity, found),
            )
        if not is_ours or starts_over:
            _clear(storage, ledger)
            ledger.begin(job.identity)
        stack.enter_context(only_one(storage, f"{WORK}/{LOCK_PREFIX}{options.shard[0]}"))
        _remove_scratch(storage, lambda part: _is_mine(job, part))
        return None


def _remove_scratch(storage: Storage, is_mine: Callable[[int], bool]) -> None:
    for folder in ("", REJECTS):
        storage.remove_scratch(folder, is_mine)


def _clear(storage: Storage, ledger: Ledger) -> None:
    with ExitStack() as others:  # nobody's work is taken away while it goes on
        for name in ledger.locks():
            others.enter_context(only_one(storage, name))
        ledger.clear()


def _committed(storage: Storage, ledger: Ledger) -> dict[int, PartRecord]:
    """The parts whose files are there."""
    names = set(storage.names())
    return {n: part for n, part in ledger.parts().items() if part.output.name in names}


def _is_mine(job: PlannedJob, part: int) -> bool:
    index, count = job.options.shard
    return part % count == index


async def run_parts(
    engine: Engine,
    job: PlannedJob,
    done: Mapping[int, PartRecord],
    is_wanted: Callable[[int], bool],
    on_progress: OnProgress = lambda progress: None,
) -> Sequence[PartRecord]:
    """Runs parts and commits them.

    Args:
        engine: what answers.
        job: as planned with the same engine.
        done: parts that are committed; they count for progress and the limit of rejects.
        is_wanted: whether a part, by number, is to be run.
        on_progress: called on the loop.
    """
    before, options = totals(done.values()), job.options
    check_rejects(before["rows_rejected"], options.max_rejects)
    writer = PartWriter(
        Storage(options.output_uri),
        job.plan,
        PartOptions(
            job.output_format, job.sizes.part_rows, options.max_rejects, before["rows_rejected"]
        ),
    )
    cut = Cut(job.sizes.part_rows, is_wanted, options.limit, job.sizes.request_rows)
    names = [column.name for column in job.plan.columns]
    blocks = job.source.blocks(names, cut.skips, job.sizes.block_rows)
    progress = _Counted(job, before, on_progress)
    runner = Runner(
        Sender(engine, job.plan.model, options.retry_s),
        writer,
        request_rows=job.sizes.request_rows,
        in_flight=job.sizes.in_flight,
        on_rows=progress.add,
        on_stop=cut.stopped.set,
    )
    await runner.run(pieces(blocks, job.plan, cut))
    return writer.committed


def check_rejects(rejected: int, limit: int | None) -> None:
    """Raises StoppedError where there are more than allowed."""
    if limit is not None and rejected > limit:
        raise StoppedError(f"{rejected} rows were rejected, more than --max-rejects {limit}")


class _Counted:
    """Adds progress up and tells of it."""

    def __init__(self, job: PlannedJob, before: Mapping[str, int], on_progress: OnProgress) -> None:
        self._rows = self._resumed = before["rows_in"]
        self._rejected = before["rows_rejected"]
        self._total = job.rows if job.options.shard[1] == 1 else None
        self._on_progress = on_progress
        self._tell()

    def add(self, rows: int, rejected: int) -> None:
        self._rows += rows
        self._rejected += rejected
        self._tell()

    def _tell(self) -> None:
        self._on_progress(Progress(self._rows, self._rejected, self._total, self._resumed))


def _finish(
    job: PlannedJob, storage: Storage, mine: Mapping[int, PartRecord], began: float
) -> JobResult:
    """Says that this shard is done and, if it is the last, that the job is."""
    ledger = Ledger(storage)
    index, count = job.options.shard
    seconds = time.monotonic() - began
    with only_one(storage, _LOCK, wait=True):
        ledger.finish_shard(index, count, {"parts": len(mine), "seconds": round(seconds, 3)})
        shards = ledger.finished_shards(count)
        if len(shards) == count:
            manifest = _publish(job, storage, shards)
            return _finished("done", storage, manifest, seconds)
    counts = totals(mine.values())
    return JobResult(
        "shard done",
        counts["rows_in"],
        counts["rows_out"],
        counts["rows_rejected"],
        0,
        len(mine),
        seconds,
        "",
    )


def _publish(job: PlannedJob, storage: Storage, shards: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Writes the manifest; in an object store another shard may have done so at the same time."""
    ledger = Ledger(storage)
    parts = ledger.parts()
    if not parts and not any(shard["parts"] for shard in shards):
        options = PartOptions(job.output_format, job.sizes.part_rows)
        PartWriter(storage, job.plan, options).write_empty()
        manifest = _manifest(job, ledger.parts(), shards)
    elif len(parts) == sum(shard["parts"] for shard in shards):
        manifest = _manifest(job, parts, shards)
    else:
        others = ledger.manifest()
        if others is None or others["job"] != job.identity:
            raise JobError(f"{storage.uri}: only {len(parts)} parts are there; run it again")
        return others
    _remove_scratch(storage, lambda part: True)
    ledger.publish(manifest)
    return manifest


def _manifest(
    job: PlannedJob, parts: Mapping[int, PartRecord], shards: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = max((each["seconds"] for each in shards), default=0.0)
    counts = totals(parts.values())
    rejects = [part.rejects for part in parts.values() if part.rejects]
    return {
        "penstock_version": __version__,
        "job": job.identity,
        "counts": counts,
        "outputs": [_file_entry(part.output) for part in parts.values()],
        "rejects": [_file_entry(file) for file in rejects],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_of_last_run": seconds,
    }


def _file_entry(file: Any) -> dict[str, Any]:
    return {
        "name": file.name,
        "rows": file.rows,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
    }
