"""Messages of penstock.v1.JobService."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from google.protobuf.message import DecodeError

from penstock._messages import jobs_pb
from penstock.errors import InvalidArgumentError

JobState = Literal["QUEUED", "RUNNING", "DONE", "FAILED", "CANCELLED"]

JOB_METHODS = ("Submit", "Get", "List", "Cancel", "Watch")
"""The RPCs of the service; Watch streams."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job does, as it was asked for; proto/penstock/v1/jobs.proto has the fields."""

    model: str
    model_version: str = ""
    input: str = ""
    output: str = ""
    input_format: str = ""
    output_format: str = ""
    maps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    key: str = ""
    keep: tuple[str, ...] = ()
    round: bool = False
    batch_size: int = 0
    in_flight: int = 0
    part_rows: int = 0
    limit: int | None = None
    max_rejects: int | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as callers see it.

    Attributes:
        id: of the job.
        spec: what it does.
        state: how far it is.
        message: why it failed.
        rows: input rows that are done.
        rows_rejected: those of them that were rejected.
        rows_total: all of them; None = unknown.
        submitted_ms: since 1970.
        ended_ms: since 1970; 0 = not yet.
    """

    id: str
    spec: JobSpec
    state: JobState = "QUEUED"
    message: str = ""
    rows: int = 0
    rows_rejected: int = 0
    rows_total: int | None = None
    submitted_ms: int = 0
    ended_ms: int = 0

    @property
    def has_ended(self) -> bool:
        """Nothing follows by itself."""
        return self.state in ("DONE", "FAILED", "CANCELLED")


def parse_submit(request: bytes) -> tuple[str, JobSpec]:
    """The id, empty where the server is to make one, and what to do."""
    message = jobs_pb.SubmitRequest()
    _parse(message, request, "Submit")
    spec = message.spec
    return message.id, JobSpec(
        spec.model,
        spec.model_version,
        spec.input,
        spec.output,
        spec.input_format,
        spec.output_format,
        {name: tuple(columns.names) for name, columns in sorted(spec.maps.items())},
        spec.key,
        tuple(spec.keep),
        spec.round,
        spec.batch_size,
        spec.in_flight,
        spec.part_rows,
        spec.limit if spec.HasField("limit") else None,
        spec.max_rejects if spec.HasField("max_rejects") else None,
        spec.overwrite,
    )


def parse_job_request(rpc: str, request: bytes) -> str:
    """The id that Get, Cancel or Watch asks about."""
    message = jobs_pb.JobRequest()
    _parse(message, request, rpc)
    return message.id


def check_list_request(request: bytes) -> None:
    """Refuses what is no message."""
    _parse(jobs_pb.ListRequest(), request, "List")


def encode_job(job: JobView) -> bytes:
    """The Job message."""
    return _message(job).SerializeToString()


def encode_jobs(jobs: Iterable[JobView]) -> bytes:
    """The ListResponse message."""
    return jobs_pb.ListResponse(jobs=[_message(job) for job in jobs]).SerializeToString()


def job_to_dict(job: JobView) -> dict[str, Any]:
    """For keeping it as JSON."""
    return asdict(job)


def job_from_dict(kept: Mapping[str, Any]) -> JobView:
    """As it was kept; KeyError, TypeError for what is no job."""
    spec = dict(kept["spec"])
    spec["maps"] = {name: tuple(columns) for name, columns in spec["maps"].items()}
    spec["keep"] = tuple(spec["keep"])
    return JobView(**{**kept, "spec": JobSpec(**spec)})


def _message(job: JobView) -> jobs_pb.Job:
    spec = asdict(job.spec)
    maps = {name: jobs_pb.Columns(names=columns) for name, columns in spec.pop("maps").items()}
    return jobs_pb.Job(
        id=job.id,
        spec=jobs_pb.JobSpec(maps=maps, **spec),
        state=job.state,
        message=job.message,
        rows=job.rows,
        rows_rejected=job.rows_rejected,
        rows_total=job.rows_total,
        submitted_ms=job.submitted_ms,
        ended_ms=job.ended_ms,
    )


def _parse(message: Any, request: bytes, rpc: str) -> None:
    try:
        message.ParseFromString(request)
    except DecodeError:
        raise InvalidArgumentError(f"{rpc}: the request is no message of its type") from None
