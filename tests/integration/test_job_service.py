"""penstock.v1.JobService: jobs on a server, on both transports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.access_files import key_entry, write_keys
from tests.support.fixture_models import write_blocked, write_identity
from tests.support.http import ask
from tests.support.run_server import RunningServer, run_server, server_config

from penstock import codec
from penstock._messages import jobs_pb
from penstock.errors import StartupError

PATIENCE_S = 60


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_identity(tmp_path / "models")
    write_blocked(tmp_path / "models", tmp_path / "gate")
    return tmp_path / "models"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of jobs, with 100 rows of two floats."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    values = np.arange(200, dtype=np.float32).reshape(100, 2)
    rows = pa.array(values.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"INPUT0": rows}), folder / "in.parquet", row_group_size=10)
    return folder


class Jobs:
    """The service's client, of bytes."""

    def __init__(self, channel: Any, metadata: Any = ()) -> None:
        self._channel = channel
        self._metadata = metadata

    def call(self, rpc: str, request: Any, answer: Any = jobs_pb.Job) -> Any:
        path = f"/{codec.JOBS_SERVICE_NAME}/{rpc}"
        call = self._channel.unary_unary(path, None, answer.FromString)
        return call(request.SerializeToString(), metadata=self._metadata, timeout=PATIENCE_S)

    async def submit(self, model: str, job_id: str = "", **fields: Any) -> Any:
        spec = jobs_pb.JobSpec(**{"model": model, "input": "in.parquet", "output": "out", **fields})
        return await self.call("Submit", jobs_pb.SubmitRequest(id=job_id, spec=spec))

    async def get(self, job_id: str) -> Any:
        return await self.call("Get", jobs_pb.JobRequest(id=job_id))

    async def cancel(self, job_id: str) -> Any:
        return await self.call("Cancel", jobs_pb.JobRequest(id=job_id))

    def watch(self, job_id: str) -> Any:
        path = f"/{codec.JOBS_SERVICE_NAME}/Watch"
        call = self._channel.unary_stream(path, None, jobs_pb.Job.FromString)
        request = jobs_pb.JobRequest(id=job_id).SerializeToString()
        return call(request, metadata=self._metadata, timeout=PATIENCE_S)

    async def until(self, job_id: str, *states: str) -> Any:
        """The job once it is in one of the states."""
        async for job in self.watch(job_id):
            if state(job) in states:
                return job
        raise AssertionError(f"{job} never was in {states}")


def state(job: Any) -> str:
    name: str = jobs_pb.Job.State.Name(job.state)
    return name


@asynccontextmanager
async def serving(
    repository: Path, root: Path, **settings: Any
) -> AsyncIterator[tuple[RunningServer, Jobs]]:
    config = server_config(repository, jobs_root=(str(root),), **settings)
    async with run_server(config) as server, server.client() as client:
        yield server, Jobs(client.channel)


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def values_of(root: Path, output: str = "out") -> list[list[float]]:
    parts = sorted((root / output).glob("part-*"))
    values: list[list[float]] = pa.concat_tables(map(pq.read_table, parts))["OUTPUT0"].to_pylist()
    return values


EXPECTED = np.arange(200).reshape(100, 2).tolist()


async def test_job_runs_and_is_watched_to_its_end(repository: Path, root: Path) -> None:
    async with serving(repository, root) as (server, jobs):
        submitted = await jobs.submit("identity", "my-job", part_rows=30)
        assert (submitted.id, submitted.spec.model) == ("my-job", "identity")
        seen = [job async for job in jobs.watch("my-job")]
        assert state(seen[-1]) == "DONE"
        assert [job.rows for job in seen] == sorted(job.rows for job in seen)
        last = seen[-1]
        assert (last.rows, last.rows_total, last.rows_rejected) == (100, 100, 0)
        assert last.ended_ms >= last.submitted_ms > 0
        assert values_of(root) == EXPECTED
        listed = await jobs.call("List", jobs_pb.ListRequest(), jobs_pb.ListResponse)
        assert [job.id for job in listed.jobs] == ["my-job"]
        text = (await ask(server.metrics_port, "/metrics")).body.decode()
        assert "penstock_job_rows_total 100" in text
        assert 'penstock_jobs_ended_total{state="done"} 1' in text
        again = await jobs.submit("identity", "my-job", part_rows=30)
        assert state(again) == "DONE"


async def test_job_survives_the_server_and_goes_on(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root) as (_, jobs):
        await jobs.submit("blocked", "long", part_rows=10)
        await jobs.submit("identity", "next", output="next")
        await jobs.until("long", "RUNNING")
        assert state(await jobs.get("next")) == "QUEUED"
        (tmp_path / "gate").touch()  # a model that never ends would be waited for
    async with serving(repository, root) as (_, jobs):
        for job_id in ("long", "next"):
            assert state(await jobs.until(job_id, "DONE", "FAILED")) == "DONE"
    assert values_of(root) == values_of(root, "next") == EXPECTED


async def test_cancelled_job_stops_and_can_be_submitted_again(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root) as (server, jobs):
        await jobs.submit("blocked", "j")
        await jobs.until("j", "RUNNING")
        assert state(await jobs.cancel("j")) == "CANCELLED"
        assert not list((root / "out").glob("*part-*"))
        assert state(await jobs.cancel("j")) == "CANCELLED"
        (tmp_path / "gate").touch()
        await jobs.submit("blocked", "j")
        assert state(await jobs.until("j", "DONE", "FAILED")) == "DONE"
        text = (await ask(server.metrics_port, "/metrics")).body.decode()
        assert 'penstock_jobs_ended_total{state="cancelled"} 1' in text
    assert values_of(root) == EXPECTED


async def test_job_that_cannot_run_is_refused_with_every_problem(
    repository: Path, root: Path
) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    async with serving(repository, root) as (_, jobs):
        refused = [
            ({"model": "nobody"}, "Request for unknown model: 'nobody' is not found"),
            ({"model": "identity", "input": "../x"}, "input '../x': '..' is not allowed"),
            ({"model": "identity", "output": "/tmp/x"}, "output '/tmp/x' is not within the roots"),
            ({"model": "identity", "input": "none.csv"}, "no file found"),
            ({"model": "identity", "key": "k"}, "the input has no column 'k' to carry"),
            ({"model": "identity", "job_id": "a/b"}, "id: expected at most 64 letters"),
        ]
        for fields, fragment in refused:
            code, details = await code_of(jobs.submit(**fields))
            assert (code, fragment in details) == (invalid, True), details
        await jobs.submit("identity", "taken")
        code, _ = await code_of(jobs.submit("identity", "taken", output="other"))
        assert code is grpc.StatusCode.ALREADY_EXISTS
        for rpc in ("Get", "Cancel"):
            code, details = await code_of(jobs.call(rpc, jobs_pb.JobRequest(id="nope")))
            assert (code, details) == (grpc.StatusCode.NOT_FOUND, "no job 'nope' is known")
        code, _ = await code_of(jobs.watch("nope").read())
        assert code is grpc.StatusCode.NOT_FOUND


async def test_job_that_fails_says_why(repository: Path, root: Path) -> None:
    async with serving(repository, root) as (_, jobs):
        await jobs.submit("identity", "first")
        await jobs.until("first", "DONE")
        await jobs.submit("identity", "second", limit=5)
        failed = await jobs.until("second", "DONE", "FAILED")
        assert state(failed) == "FAILED"
        assert "holds outputs of another job" in failed.message
        assert failed.message.splitlines()[1].startswith("limit: there null, asked 5")


async def test_watch_ends_when_the_server_closes(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root) as (server, jobs):
        await jobs.submit("blocked", "j")
        stream = jobs.watch("j")
        await stream.read()
        stopping = asyncio.ensure_future(server.app.stop())
        seen = await code_of(_to_the_end(stream))
        (tmp_path / "gate").touch()  # the stop waits for the model, the watcher did not
        assert seen == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        await stopping


async def _to_the_end(stream: Any) -> None:
    while isinstance(job := await stream.read(), jobs_pb.Job):
        assert state(job) in ("QUEUED", "RUNNING")


async def test_every_rpc_of_jobs_wants_a_key_of_its_group(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    keys = write_keys(
        tmp_path / "keys.json",
        key_entry("jobs", "key-of-jobs", "jobs"),
        key_entry("user", "key-of-user", "inference", "model-repository"),
    )
    async with serving(repository, root, api_keys_file=str(keys)) as (server, nobody):
        async with server.client() as client:
            for metadata, code in (
                ((), grpc.StatusCode.UNAUTHENTICATED),
                ((("x-api-key", "key-of-user"),), grpc.StatusCode.PERMISSION_DENIED),
            ):
                jobs = Jobs(client.channel, metadata)
                for rpc in codec.JOB_METHODS:
                    request = jobs_pb.JobRequest(id="x")
                    call = jobs.watch("x").read() if rpc == "Watch" else jobs.call(rpc, request)
                    assert (await code_of(call))[0] is code, rpc
            jobs = Jobs(client.channel, (("x-api-key", "key-of-jobs"),))
            await jobs.submit("identity", "j")  # its requests are the server's own
            assert state(await jobs.until("j", "DONE", "FAILED")) == "DONE"


async def test_without_roots_there_is_no_such_service(repository: Path, transport: str) -> None:
    async with run_server(server_config(repository)) as server, server.client() as client:
        code, _ = await code_of(Jobs(client.channel).get("x"))
        assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.any_transport
async def test_root_that_is_no_directory_stops_the_start(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="--jobs-root .* is no directory"):
        async with run_server(server_config(repository, jobs_root=(str(tmp_path / "no"),))):
            pass
