"""`client.jobs`: batch jobs of a Penstock server that was given `--jobs-root`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Protocol

from penstock_client import _jobs as operations
from penstock_client._jobs import Job, JobSpec
from penstock_client._operations import Operation, T


class Sender(Protocol):
    """What of a `Client` its jobs need."""

    def _run(self, operation: Operation[T], deadline_s: float | None) -> T: ...

    def _watch(self, job_id: str, deadline_s: float | None) -> Generator[Job, None, None]: ...


class AsyncSender(Protocol):
    """What of an `AsyncClient` its jobs need."""

    async def _run(self, operation: Operation[T], deadline_s: float | None) -> T: ...

    def _watch(self, job_id: str, deadline_s: float | None) -> AsyncGenerator[Job, None]: ...


class Jobs:
    """Batch jobs that the server runs; `Client.jobs`.

        job = client.jobs.submit(JobSpec("digits", "images.parquet", "labels"))
        for job in client.jobs.watch(job.id):
            print(job.state, job.rows)

    Methods raise as those of `Client` do; a server without jobs answers UNIMPLEMENTED. A job
    outlives its caller, and its server: it goes on with the next one.

    Threading: thread-safe.
    """

    def __init__(self, sender: Sender) -> None:
        """Made by the client."""
        self._sender = sender

    def submit(self, spec: JobSpec, job_id: str = "", *, deadline_s: float | None = None) -> Job:
        """Queues a job.

        Args:
            spec: What it does.
            job_id: At most 64 letters, digits, '-' and '_'; "" makes one. The same job with the
                same id is no second job, so that a retry does no harm.
            deadline_s: Seconds for the call, not for the job.

        Raises:
            TensorError: The spec holds a value that cannot be sent.
            InvalidArgumentError: It cannot be run as asked; a line for every problem.
            AlreadyExistsError: The id is another job's.
        """
        return self._sender._run(operations.submit(spec, job_id), deadline_s)

    def get(self, job_id: str, *, deadline_s: float | None = None) -> Job:
        """The job as it is now; NOT_FOUND for an unknown id, as in `cancel` and `watch`."""
        return self._sender._run(operations.get(job_id), deadline_s)

    def list(self, *, deadline_s: float | None = None) -> tuple[Job, ...]:
        """Every job that the server knows, oldest first."""
        return self._sender._run(operations.list_all(), deadline_s)

    def cancel(self, job_id: str, *, deadline_s: float | None = None) -> Job:
        """Stops a job, or keeps it from beginning; one that has ended stays as it is."""
        return self._sender._run(operations.cancel(job_id), deadline_s)

    def watch(self, job_id: str, *, deadline_s: float | None = None) -> Generator[Job, None, None]:
        """The job now and after every change, until it has ended.

        Has no deadline unless given one, and is never retried: when the server shuts down it
        raises `UnavailableError`, the job goes on with the next server, and can be watched there.
        Close the generator to leave early.
        """
        return self._sender._watch(job_id, deadline_s)


class AsyncJobs:
    """`Jobs` for asyncio: the same methods and arguments, awaited; `AsyncClient.jobs`."""

    def __init__(self, sender: AsyncSender) -> None:
        """Made by the client."""
        self._sender = sender

    async def submit(
        self, spec: JobSpec, job_id: str = "", *, deadline_s: float | None = None
    ) -> Job:
        """Queues a job; as `Jobs.submit`."""
        return await self._sender._run(operations.submit(spec, job_id), deadline_s)

    async def get(self, job_id: str, *, deadline_s: float | None = None) -> Job:
        """The job as it is now; NOT_FOUND for an unknown id, as in `cancel` and `watch`."""
        return await self._sender._run(operations.get(job_id), deadline_s)

    async def list(self, *, deadline_s: float | None = None) -> tuple[Job, ...]:
        """Every job that the server knows, oldest first."""
        return await self._sender._run(operations.list_all(), deadline_s)

    async def cancel(self, job_id: str, *, deadline_s: float | None = None) -> Job:
        """Stops a job, or keeps it from beginning; one that has ended stays as it is."""
        return await self._sender._run(operations.cancel(job_id), deadline_s)

    def watch(self, job_id: str, *, deadline_s: float | None = None) -> AsyncGenerator[Job, None]:
        """The job now and after every change, until it has ended; as `Jobs.watch`."""
        return self._sender._watch(job_id, deadline_s)
