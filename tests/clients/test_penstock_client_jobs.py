"""`client.jobs` of both clients against a server of its own, on both transports."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.fixture_models import write_blocked, write_identity
from tests.support.run_server import run_server, server_config

from penstock.config import ServerConfig
from penstock_client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    InvalidArgumentError,
    Job,
    JobSpec,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
)

SPEC = JobSpec("identity", "in.parquet", "out", part_rows=4)
BLOCKED = JobSpec("blocked", "in.parquet", "blocked", maps={"INPUT0": ("INPUT0",)})
VALUES = [[float(row), float(-row)] for row in range(10)]


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    repository, root = tmp_path / "models", tmp_path / "jobs"
    write_identity(repository)
    write_blocked(repository, tmp_path / "gate")
    root.mkdir()
    rows = pa.array(VALUES, pa.list_(pa.float32()))
    pq.write_table(pa.table({"INPUT0": rows}), root / "in.parquet")
    return server_config(repository, jobs_root=(str(root),))


def outputs_of(folder: Path) -> list[list[float]]:
    parts = map(pq.read_table, sorted(folder.glob("part-*")))
    values: list[list[float]] = pa.concat_tables(parts)["OUTPUT0"].to_pylist()
    return values


def run_and_watch(url: str) -> None:
    """A job from its submission to its end, blocking."""
    with Client(url) as client:
        submitted = client.jobs.submit(SPEC)
        assert submitted.spec == SPEC
        assert client.jobs.submit(SPEC, submitted.id).id == submitted.id
        seen = list(client.jobs.watch(submitted.id))
        last = seen[-1]
        assert (last.state, last.rows, last.rows_total, last.rows_rejected) == ("DONE", 10, 10, 0)
        assert last.ended_ms >= last.submitted_ms > 0
        assert client.jobs.get(submitted.id) == last
        assert client.jobs.cancel(submitted.id) == last
        assert client.jobs.list() == (last,)


async def test_job_is_run_and_watched_to_its_end(config: ServerConfig, tmp_path: Path) -> None:
    async with run_server(config) as server:
        await asyncio.to_thread(run_and_watch, server.grpc_address)
    assert outputs_of(tmp_path / "jobs" / "out") == VALUES


async def test_running_job_is_cancelled(config: ServerConfig, tmp_path: Path) -> None:
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        await client.jobs.submit(BLOCKED, "mine")
        states = []
        async for job in client.jobs.watch("mine"):
            if job.state not in states:
                states.append(job.state)
            if job.state == "RUNNING":
                (tmp_path / "gate").touch()
                await client.jobs.cancel("mine")
        assert states[-1] in ("CANCELLED", "DONE")  # what ended before it was told is done
        assert [job.state for job in await client.jobs.list()] == [states[-1]]


async def test_refusals_are_of_their_status(config: ServerConfig) -> None:
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        with pytest.raises(InvalidArgumentError, match="unknown model: 'nobody'"):
            await client.jobs.submit(JobSpec("nobody", "in.parquet", "out"))
        await client.jobs.submit(SPEC, "taken")
        with pytest.raises(AlreadyExistsError):
            await client.jobs.submit(BLOCKED, "taken")
        for ask in (client.jobs.get, client.jobs.cancel):
            with pytest.raises(NotFoundError, match="no job 'nope' is known"):
                await ask("nope")
        with pytest.raises(NotFoundError):
            await anext(client.jobs.watch("nope"))


async def test_watch_ends_with_the_server_and_the_job_goes_on_with_the_next(
    config: ServerConfig, tmp_path: Path
) -> None:
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        await client.jobs.submit(BLOCKED, "mine")
        views = client.jobs.watch("mine")
        assert (await anext(views)).state in ("QUEUED", "RUNNING")
        stopping = asyncio.ensure_future(server.app.stop())
        with pytest.raises(UnavailableError, match="the server is shutting down"):
            await _to_the_end(views)
        (tmp_path / "gate").touch()
        await stopping
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        assert (await _to_the_end(client.jobs.watch("mine"))).state == "DONE"
    assert outputs_of(tmp_path / "jobs" / "blocked") == VALUES


async def _to_the_end(views: AsyncIterator[Job]) -> Job:
    return [job async for job in views][-1]


async def test_server_without_jobs_answers_unimplemented(tmp_path: Path) -> None:
    write_identity(tmp_path)
    async with run_server(server_config(tmp_path)) as server:
        async with AsyncClient(server.grpc_address) as client:
            with pytest.raises(UnimplementedError):
                await client.jobs.list()
            with pytest.raises(UnimplementedError):
                await anext(client.jobs.watch("mine"))
