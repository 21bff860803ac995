"""JobManager: the jobs of a server, which outlive their callers and the process.

Each job is a small file in the first root's `.jobs` folder, written whole at every change of its
state. What a job has done is in its output's ledger (`penstock.jobs.ledger`), so that one that was
under way when the process ended goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.codec import JobSpec, JobView, job_from_dict, job_to_dict
from penstock.errors import (
    AlreadyExistsError,
    CoreError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from penstock.jobs.failures import BusyError, JobError, NotServedError
from penstock.jobs.job import Progress, run_job
from penstock.jobs.model import Engine
from penstock.jobs.planning import JobOptions, PlannedJob, plan_job
from penstock.jobs.roots import JobRoots
from penstock.jobs.storage import Storage

_FOLDER = ".jobs"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_WAITING = 1000
_MAX_KEPT = 1000
"""Jobs that have ended and are remembered; the oldest are forgotten first."""
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 30.0
_PATIENCE_S = 3600.0
"""For how long a job of an earlier process waits for its model and for that process to let go."""

_log = logging.getLogger("penstock.jobs")


@dataclass(slots=True, eq=False)
class _Entry:
    """A job, who runs it, and who waits for a change of it.

    Attributes:
        view: as callers see it.
        patience_s: how long it waits for what is not there yet.
        task: runs it.
        changed: set when there is another view.
        keeping: held while the view is written, so that the last one is written last.
        was_cancelled: by a caller.
        is_ending: what it ended with is being written; too late to cancel it.
    """

    view: JobView
    patience_s: float = 0.0
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    keeping: asyncio.Lock = field(default_factory=asyncio.Lock)
    was_cancelled: bool = False
    is_ending: bool = False


class JobManager:
    """Queues, runs and remembers jobs.

    Threading: confined to the event loop; files are looked at in threads.
    Ownership: borrows the engine, which outlives it.
    Lifecycle: constructed -> start -> (submit | cancel | reads)* -> close.
    """

    def __init__(self, engine: Engine, roots: JobRoots, max_running: int) -> None:
        """Runs nothing yet.

        Args:
            engine: what answers the requests of jobs.
            roots: what jobs may read and write.
            max_running: jobs that run at the same time.
        """
        self._engine = engine
        self._roots = roots
        self._slots = asyncio.Semaphore(max_running)
        self._storage = Storage(roots.first)
        self._entries: dict[str, _Entry] = {}
        self._submitting = asyncio.Lock()
        self._closing = asyncio.Event()
        self._writes: set[asyncio.Task[None]] = set()
        self._rows = self._rejected = 0
        self._ended: Counter[str] = Counter()

    async def start(self) -> None:
        """Takes up the jobs of an earlier process."""
        for view in await asyncio.to_thread(self._kept):
            entry = self._entries[view.id] = _Entry(view, _PATIENCE_S)
            if not view.has_ended:
                _log.info("job '%s' goes on", view.id)
                self._launch(entry)

    async def close(self) -> None:
        """Stops what runs; a later process goes on with it."""
        self._closing.set()
        tasks = []
        for entry in self._entries.values():
            if entry.task is not None:
                tasks.append(entry.task)
                if not entry.is_ending:
                    entry.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._writes, return_exceptions=True)
        for entry in self._entries.values():
            self._tell(entry)

    async def submit(self, job_id: str, spec: JobSpec) -> JobView:
        """Queues a job, once its plan is found right.

        Raises:
            InvalidArgumentError: it cannot be run as asked; a line for every problem.
            AlreadyExistsError: the id is another job's.
            ResourceExhaustedError: too many wait.
            UnavailableError: the server is shutting down, or cannot write the job down.
        """
        if self._closing.is_set():
            raise UnavailableError("the server is shutting down")
        if job_id and _ID.fullmatch(job_id) is None:
            raise InvalidArgumentError("id: expected at most 64 letters, digits, '-' and '_'")
        async with self._submitting:
            return await self._submit(job_id, spec)

    async def _submit(self, job_id: str, spec: JobSpec) -> JobView:
        known = self._entries.get(job_id)
        if known is not None and known.view.spec != spec:
            raise AlreadyExistsError(f"job '{job_id}' is another job")
        if known is not None and known.view.state not in ("FAILED", "CANCELLED"):
            return known.view
        if sum(not entry.view.has_ended for entry in self._entries.values()) >= _MAX_WAITING:
            raise ResourceExhaustedError(f"{_MAX_WAITING} jobs are waiting")
        try:
            await self._plan(spec)
        except JobError as error:
            raise InvalidArgumentError("\n".join(error.lines)) from None
        view = JobView(job_id or secrets.token_hex(8), spec, submitted_ms=_now_ms())
        entry = self._entries[view.id] = _Entry(view)
        # A caller that goes away meanwhile leaves a job that runs, not one that nobody runs.
        await self._shielded(self._register(entry, known))
        return view

    async def _register(self, entry: _Entry, known: _Entry | None) -> None:
        try:
            await self._keep(entry, entry.view)
        except BaseException as error:
            if known is None:
                del self._entries[entry.view.id]
            else:
                self._entries[entry.view.id] = known
            entry.view = replace(entry.view, state="FAILED", message="it could not be written down")
            self._tell(entry)
            if not isinstance(error, JobError):
                raise
            _log.error("job '%s': %s", entry.view.id, error)
            raise UnavailableError("the job cannot be written down; the log has why") from None
        if entry.was_cancelled:
            await self._end(entry, state="CANCELLED", message="it was cancelled")
        elif not self._closing.is_set():
            self._launch(entry)
        await self._forget_oldest()

    def get(self, job_id: str) -> JobView:
        """The job; NotFoundError for an unknown id."""
        return self._entry(job_id).view

    def jobs(self) -> list[JobView]:
        """All that are known, oldest first."""
        views = [entry.view for entry in self._entries.values()]
        return sorted(views, key=lambda view: view.submitted_ms)

    async def cancel(self, job_id: str) -> JobView:
        """Stops a job; one that has ended stays as it is."""
        entry = self._entry(job_id)
        if entry.view.has_ended:
            return entry.view
        if not entry.is_ending:
            entry.was_cancelled = True
        if entry.task is not None:
            if not entry.is_ending:
                entry.task.cancel()
            await asyncio.wait({entry.task})
        return entry.view

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """The job now and after every change, until it has ended or the server closes."""
        entry = self._entry(job_id)
        while True:
            changed, view = entry.changed, entry.view
            yield view
            if view.has_ended or self._closing.is_set():
                return
            if entry.view is view:
                await changed.wait()

    def stats(self) -> dict[str, Any]:
        """Rows and rejects of this process, jobs by state now, and jobs that ended, by how."""
        states = Counter(entry.view.state for entry in self._entries.values())
        return {
            "rows": self._rows,
            "rejected": self._rejected,
            "running": states["RUNNING"],
            "queued": states["QUEUED"],
            "ended": {state: self._ended[state] for state in ("DONE", "FAILED", "CANCELLED")},
        }

    def _entry(self, job_id: str) -> _Entry:
        try:
            return self._entries[job_id]
        except KeyError:
            raise NotFoundError(f"no job '{job_id[:64]}' is known") from None

    async def _plan(self, spec: JobSpec) -> PlannedJob:
        options = await asyncio.to_thread(self._options, spec)
        planned = await plan_job(self._engine, options)
        if self._roots.is_local(options.input_uri):
            await asyncio.to_thread(self._roots.check_files, planned.source.files, spec.input)
        return planned

    def _options(self, spec: JobSpec) -> JobOptions:
        output_uri = self._roots.resolve(spec.output, "output")
        if self._roots.is_local(output_uri):
            self._roots.check_output(output_uri, spec.output)
        return JobOptions(
            model=spec.model,
            version=spec.model_version,
            input_uri=self._roots.resolve(spec.input, "input"),
            output_uri=output_uri,
            input_format=spec.input_format,
            output_format=spec.output_format,
            maps=spec.maps,
            key=spec.key,
            keep=spec.keep,
            may_round=spec.round,
            request_rows=spec.batch_size,
            in_flight=spec.in_flight,
            part_rows=spec.part_rows,
            limit=spec.limit,
            max_rejects=spec.max_rejects,
            overwrite=spec.overwrite,
        )

    def _launch(self, entry: _Entry) -> None:
        entry.task = asyncio.get_running_loop().create_task(self._run(entry))

    async def _run(self, entry: _Entry) -> None:
        try:
            await self._run_patiently(entry)
        except asyncio.CancelledError:
            if entry.was_cancelled:
                await self._end(entry, state="CANCELLED", message="it was cancelled")
        except (JobError, CoreError) as error:
            lines = error.lines if isinstance(error, JobError) else [str(error)]
            await self._end(entry, state="FAILED", message="\n".join(lines))
        except Exception:
            _log.exception("job '%s' failed", entry.view.id)
            await self._end(entry, state="FAILED", message="internal error; the log has it")

    async def _run_patiently(self, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        give_up, wait_s = loop.time() + entry.patience_s, _FIRST_WAIT_S
        while True:
            try:
                async with self._slots:
                    await self._run_once(entry)
                    return
            except (BusyError, NotServedError) as error:
                if loop.time() + wait_s > give_up:
                    raise
                _log.warning("job '%s' waits: %s", entry.view.id, error)
                await self._change(entry, state="QUEUED")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _run_once(self, entry: _Entry) -> None:
        await self._change(entry, state="RUNNING")
        planned = await self._plan(entry.view.spec)
        result = await run_job(self._engine, planned, self._listener(entry))
        await self._end(
            entry,
            state="DONE",
            rows=result.rows_in,
            rows_rejected=result.rows_rejected,
            rows_total=result.rows_in,
        )

    def _listener(self, entry: _Entry) -> Any:
        last: Progress | None = None

        def hear(progress: Progress) -> None:
            nonlocal last
            if last is not None:  # the first tells what an earlier run had done
                self._rows += progress.rows - last.rows
                self._rejected += progress.rejected - last.rejected
            last = progress
            entry.view = replace(
                entry.view,
                rows=progress.rows,
                rows_rejected=progress.rejected,
                rows_total=progress.total,
            )
            self._tell(entry)

        return hear

    async def _end(self, entry: _Entry, **changes: Any) -> None:
        entry.is_ending = True
        self._ended[changes["state"]] += 1
        await self._change(entry, ended_ms=_now_ms(), **changes)
        _log.info("job '%s' ended: %s %s", entry.view.id, entry.view.state, entry.view.message)

    async def _change(self, entry: _Entry, **changes: Any) -> None:
        view = replace(entry.view, **changes)
        try:
            await self._keep(entry, view)
        except JobError as error:  # what it has done is kept by its output all the same
            _log.error("job '%s': %s", view.id, error)
        entry.view = view
        self._tell(entry)

    def _tell(self, entry: _Entry) -> None:
        changed, entry.changed = entry.changed, asyncio.Event()
        changed.set()

    async def _forget_oldest(self) -> None:
        ended = [view for view in self.jobs() if view.has_ended]
        for view in ended[: max(0, len(ended) - _MAX_KEPT)]:
            del self._entries[view.id]
            await asyncio.to_thread(self._storage.remove, [f"{_FOLDER}/{view.id}.json"])

    async def _keep(self, entry: _Entry, view: JobView) -> None:
        await self._shielded(self._write(entry, view))

    async def _write(self, entry: _Entry, view: JobView) -> None:
        content = json.dumps(job_to_dict(view)).encode()
        async with entry.keeping:
            await asyncio.to_thread(self._storage.write, f"{_FOLDER}/{view.id}.json", content)

    async def _shielded(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits what goes on to its end even if the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        await asyncio.shield(task)

    def _kept(self) -> list[JobView]:
        found = []
        for name in self._storage.names(_FOLDER):
            content = self._storage.read(f"{_FOLDER}/{name}")
            try:
                found.append(job_from_dict(json.loads(content or b"")))
            except (ValueError, KeyError, TypeError):
                _log.error("a file of a job cannot be read and is left alone: %s", name)
        return sorted(found, key=lambda view: view.submitted_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
