"""penstock.v1.JobService: batch jobs, behind the same gate as everything else (group `jobs`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc

from penstock import codec
from penstock.errors import UnavailableError
from penstock.frontend.gate import Gate
from penstock.frontend.readiness import Readiness
from penstock.frontend.status import abort

__all__ = ["JOBS_GROUP", "JobControl", "register_jobs"]

JOBS_GROUP = "jobs"


class JobControl(Protocol):
    """What of the job manager the service needs."""

    async def submit(self, job_id: str, spec: codec.JobSpec) -> codec.JobView:
        """Queues a job."""

    def get(self, job_id: str) -> codec.JobView:
        """The job."""

    def jobs(self) -> list[codec.JobView]:
        """All of them, oldest first."""

    async def cancel(self, job_id: str) -> codec.JobView:
        """Stops a job."""

    def watch(self, job_id: str) -> AsyncIterator[codec.JobView]:
        """The job at every change."""


def register_jobs(server: Any, jobs: JobControl, readiness: Readiness, gate: Gate) -> None:
    """Adds the service to a server of either transport."""
    unary = _Unary(jobs).by_rpc()
    handlers = {name: _guarded(name, behaviour, gate) for name, behaviour in unary.items()}
    handlers["Watch"] = grpc.unary_stream_rpc_method_handler(_watch(jobs, readiness, gate))
    name = codec.JOBS_SERVICE_NAME
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    server.add_registered_method_handlers(name, handlers)


class _Unary:
    """The RPCs with one answer, from bytes to bytes."""

    def __init__(self, jobs: JobControl) -> None:
        self._jobs = jobs

    async def submit(self, request: bytes) -> bytes:
        job_id, spec = codec.parse_submit(request)
        return codec.encode_job(await self._jobs.submit(job_id, spec))

    async def get(self, request: bytes) -> bytes:
        return codec.encode_job(self._jobs.get(codec.parse_job_request("Get", request)))

    async def list(self, request: bytes) -> bytes:
        codec.check_list_request(request)
        return codec.encode_jobs(self._jobs.jobs())

    async def cancel(self, request: bytes) -> bytes:
        job_id = codec.parse_job_request("Cancel", request)
        return codec.encode_job(await self._jobs.cancel(job_id))

    def by_rpc(self) -> dict[str, Callable[[bytes], Awaitable[bytes]]]:
        return {"Submit": self.submit, "Get": self.get, "List": self.list, "Cancel": self.cancel}


def _guarded(name: str, behaviour: Callable[[bytes], Awaitable[bytes]], gate: Gate) -> Any:
    async def handle(request: bytes, context: Any) -> bytes:
        try:
            await gate.admit(JOBS_GROUP, len(request), context)
            context.disable_next_message_compression()  # what is set is for responses of inference
            return await behaviour(request)
        except Exception as error:
            await abort(context, error, name)

    return grpc.unary_unary_rpc_method_handler(handle)


def _watch(jobs: JobControl, readiness: Readiness, gate: Gate) -> Any:
    async def handle(request: bytes, context: Any) -> None:
        try:
            await gate.admit(JOBS_GROUP, len(request), context)
            views = jobs.watch(codec.parse_job_request("Watch", request))
            if not await _write_until_closing(views, context, readiness):
                raise UnavailableError("the server is shutting down")
        except Exception as error:
            await abort(context, error, "Watch")

    return handle


async def _write_until_closing(
    views: AsyncIterator[codec.JobView], context: Any, readiness: Readiness
) -> bool:
    """False if the server closed before the job ended: a drain must not wait for it."""
    closing = asyncio.create_task(readiness.wait_closing())
    has_ended = False
    try:
        while not has_ended:
            coming = asyncio.ensure_future(anext(views, None))
            await asyncio.wait({coming, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return False
            view = coming.result()
            if view is None:
                return False
            await context.write(codec.encode_job(view))
            has_ended = view.has_ended
    finally:
        closing.cancel()
    return True
