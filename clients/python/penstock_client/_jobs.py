"""Jobs of a Penstock server: what they are, and their RPCs as data.

As for inference (`_operations.py`), the sync and the asyncio client differ only in how they send.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_client._messages import JOB_METHODS, jobs_pb
from penstock_client._operations import Operation
from penstock_client.errors import TensorError

_ENDED = ("DONE", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a batch job does; as the flags of `penstock batch`, and with the same defaults.

    Attributes:
        model: Its name.
        input: Rows to read: relative to the server's `--jobs-root`, or a URI within one of them.
        output: Directory to write, likewise.
        model_version: "" for the latest that is served when the job begins.
        input_format: "" for what the files' names say.
        output_format: "" for the input's, or Parquet where that cannot hold the outputs.
        maps: Columns by input, where the names differ or several make one.
        key: Column to carry to the outputs and to the rejects; "" for none.
        keep: Further columns to carry to the outputs.
        round: Take wider floats than the inputs', rounded.
        batch_size: Rows per request; 0 for the default.
        in_flight: Requests at a time; 0 for the default.
        part_rows: Rows per part of the output; 0 for the default.
        limit: Rows to do; None for all.
        max_rejects: Rejected rows beyond which the job fails; None for no limit.
        overwrite: Replace outputs of another job.
    """

    model: str
    input: str
    output: str
    model_version: str = ""
    input_format: str = ""
    output_format: str = ""
    maps: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: str = ""
    keep: Sequence[str] = ()
    round: bool = False
    batch_size: int = 0
    in_flight: int = 0
    part_rows: int = 0
    limit: int | None = None
    max_rejects: int | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its server knows it.

    Attributes:
        id: The job.
        spec: What it does.
        state: "QUEUED", "RUNNING", "DONE", "FAILED" or "CANCELLED".
        message: Why it failed, a line for every problem; "" otherwise.
        rows: Input rows that are done, rejected ones included.
        rows_rejected: Of these, the rejected ones.
        rows_total: Rows of the input; None while that is not known.
        submitted_ms: Unix time in milliseconds.
        ended_ms: Likewise; 0 until it has ended.
    """

    id: str
    spec: JobSpec
    state: str
    message: str = ""
    rows: int = 0
    rows_rejected: int = 0
    rows_total: int | None = None
    submitted_ms: int = 0
    ended_ms: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in _ENDED


def submit(spec: JobSpec, job_id: str) -> Operation[Job]:
    """Submit; retried, for the id (made here where there is none) makes a second send harmless.

    Raises:
        TensorError: A value of the spec cannot be sent.
    """
    job_id = job_id or uuid.uuid4().hex
    try:
        request = jobs_pb.SubmitRequest(id=job_id, spec=_spec_message(spec))
    except (TypeError, ValueError) as error:
        raise TensorError(f"job '{job_id}' of model '{spec.model}': {error}") from None
    return Operation(JOB_METHODS["Submit"], request, read_job, True, spec.model, job_id)


def get(job_id: str) -> Operation[Job]:
    """Get."""
    request = jobs_pb.JobRequest(id=job_id)
    return Operation(JOB_METHODS["Get"], request, read_job, True, request_id=job_id)


def list_all() -> Operation[tuple[Job, ...]]:
    """List."""
    return Operation(JOB_METHODS["List"], jobs_pb.ListRequest(), _read_jobs, True)


def cancel(job_id: str) -> Operation[Job]:
    """Cancel; retried, for a job that has ended stays as it is."""
    request = jobs_pb.JobRequest(id=job_id)
    return Operation(JOB_METHODS["Cancel"], request, read_job, True, request_id=job_id)


def watch_request(job_id: str) -> jobs_pb.JobRequest:
    """The one message that Watch is sent."""
    return jobs_pb.JobRequest(id=job_id)


def read_job(message: Any) -> Job:
    """What a Job message says."""
    return Job(
        message.id,
        _read_spec(message.spec),
        _state_name(message),
        message.message,
        message.rows,
        message.rows_rejected,
        message.rows_total if message.HasField("rows_total") else None,
        message.submitted_ms,
        message.ended_ms,
    )


def _read_jobs(message: jobs_pb.ListResponse) -> tuple[Job, ...]:
    return tuple(map(read_job, message.jobs))


def _state_name(message: jobs_pb.Job) -> str:
    known = message.DESCRIPTOR.enum_types_by_name["State"].values_by_number.get(message.state)
    return known.name if known else str(message.state)


def _spec_message(spec: JobSpec) -> jobs_pb.JobSpec:
    return jobs_pb.JobSpec(
        model=spec.model,
        model_version=spec.model_version,
        input=spec.input,
        output=spec.output,
        input_format=spec.input_format,
        output_format=spec.output_format,
        maps={name: jobs_pb.Columns(names=names) for name, names in spec.maps.items()},
        key=spec.key,
        keep=spec.keep,
        round=spec.round,
        batch_size=spec.batch_size,
        in_flight=spec.in_flight,
        part_rows=spec.part_rows,
        limit=spec.limit,
        max_rejects=spec.max_rejects,
        overwrite=spec.overwrite,
    )


def _read_spec(message: jobs_pb.JobSpec) -> JobSpec:
    return JobSpec(
        message.model,
        message.input,
        message.output,
        message.model_version,
        message.input_format,
        message.output_format,
        {name: tuple(columns.names) for name, columns in message.maps.items()},
        message.key,
        tuple(message.keep),
        message.round,
        message.batch_size,
        message.in_flight,
        message.part_rows,
        message.limit if message.HasField("limit") else None,
        message.max_rejects if message.HasField("max_rejects") else None,
        message.overwrite,
    )
