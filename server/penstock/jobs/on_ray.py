"""Jobs on an existing Ray cluster: parts are rows of a Ray dataset, and each worker has a core.

Ray Data hands part numbers to a pool of actors and gives the parts of one that is lost to another.
A worker commits a part as any job does, by one file and one record, so that a part which is run
twice is there once. Inputs, outputs and models must be reachable, under the same names, from every
node.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from penstock.jobs.failures import ExitCode, JobError, PlanError, TemporaryError
from penstock.jobs.job import JobResult, OnProgress, Progress, check_rejects, run_job_by, run_parts
from penstock.jobs.ledger import Ledger, PartRecord, totals
from penstock.jobs.model import Engine
from penstock.jobs.planning import JobOptions, PlannedJob, plan_job
from penstock.jobs.storage import Storage

_CONNECT_S = 10.0

MakeEngine = Callable[[], AbstractAsyncContextManager[Engine]]


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where and how wide.

    Attributes:
        address: of the cluster; "auto" = the one this machine is part of.
        workers: actors, each with a core of its own.
        cpus: what Ray sets aside for each.
    """

    address: str = "auto"
    workers: int = 1
    cpus: float = 1.0


class PartWorker:
    """Runs parts on a node, with an engine that stays for all of them.

    Threading: confined to its actor.
    """

    def __init__(
        self, make_engine: MakeEngine, options: JobOptions, identity: Mapping[str, Any]
    ) -> None:
        """Makes the engine and the plan anew, which must come out as the driver's."""
        self._runner = asyncio.Runner()
        self._opened = make_engine()  # it closes when nobody holds it
        self._engine = self._runner.run(self._opened.__aenter__())
        self._job = self._runner.run(plan_job(self._engine, options))
        if self._job.identity != identity:
            raise PlanError("model, input or options are others on this node than on the driver's")

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Runs some parts; their numbers, rows and rejects, and why one failed."""
        said: dict[str, list[Any]] = {"rows": [], "rejected": [], "fault": [], "code": []}
        for number in batch["part"]:
            rows = rejected = 0
            fault, code = "", ExitCode.DONE
            try:
                (part,) = self._runner.run(self._run(int(number)))
                rows, rejected = part.rows, part.rejected
            except JobError as error:
                fault, code = "\n".join(error.lines), error.exit_code
            for name, value in zip(said, (rows, rejected, fault, int(code)), strict=True):
                said[name].append(value)
        return said

    async def _run(self, number: int) -> Sequence[PartRecord]:
        return await run_parts(self._engine, self._job, {}, lambda part: part == number)


async def run_job_on_ray(
    make_engine: MakeEngine,
    job: PlannedJob,
    options: RayOptions,
    on_progress: OnProgress = lambda progress: None,
) -> JobResult:
    """Does what is left of a job on a cluster.

    Args:
        make_engine: can be pickled; makes a worker's engine, on its node.
        job: as planned here.
        options: where.
        on_progress: called as parts are done, from another thread.

    Raises:
        PlanError: Ray is missing, there is no cluster, or the input does not say how many rows
            there are.
        JobError: why the job stopped.
    """

    async def run_missing(job: PlannedJob, done: Mapping[int, PartRecord]) -> Sequence[PartRecord]:
        missing = [part for part in range(_parts(job)) if part not in done]
        if missing:
            await asyncio.to_thread(_map, make_engine, job, options, missing, done, on_progress)
        ledger = Ledger(Storage(job.options.output_uri))
        return list((await asyncio.to_thread(ledger.parts)).values())

    if job.options.shard[1] != 1:
        raise PlanError("--shard and --engine ray: Ray hands the parts out itself")
    _connect(options)
    return await run_job_by(run_missing, job)


def _parts(job: PlannedJob) -> int:
    if job.rows is None:
        raise PlanError(
            f"{job.source.format} files do not say how many rows they have: with --engine ray use "
            "parquet, feather, npy or npz"
        )
    return -(-job.rows // job.sizes.part_rows)


def _connect(options: RayOptions) -> None:
    try:
        import ray
    except ImportError:
        raise PlanError("--engine ray needs Ray: pip install 'penstock[ray]'") from None
    if ray.is_initialized():
        return
    host, colon, port = options.address.rpartition(":")
    try:
        if colon and port.isdecimal() and "://" not in options.address:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise TemporaryError(f"no Ray cluster at '{options.address}': {error}") from None


def _map(
    make_engine: MakeEngine,
    job: PlannedJob,
    options: RayOptions,
    missing: Sequence[int],
    done: Mapping[int, PartRecord],
    on_progress: OnProgress,
) -> None:
    """Blocking: has the parts done by a pool of workers."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the job has one
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    before = totals(done.values())
    rows, rejected = before["rows_in"], before["rows_rejected"]
    worker_options = replace(job.options, max_rejects=None)  # the limit is of all workers together
    workers = min(options.workers, len(missing))
    items = [{"part": part} for part in missing]
    said = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        PartWorker,
        fn_constructor_args=(make_engine, worker_options, job.identity),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=options.cpus,
        batch_size=1,
    )
    try:
        for row in said.iter_rows():
            if row["fault"]:
                kind = TemporaryError if row["code"] == ExitCode.TEMPORARY else JobError
                raise kind(*str(row["fault"]).split("\n"))
            rows += int(row["rows"])
            rejected += int(row["rejected"])
            on_progress(Progress(rows, rejected, job.rows, before["rows_in"]))
            check_rejects(rejected, job.options.max_rejects)
    except ray.exceptions.RayError as error:
        *_, reason = str(error).strip().splitlines()  # what came before is where it was raised
        raise TemporaryError(f"the cluster gave up: {reason}") from None
