"""Jobs of both clients over a mock transport: what is sent, and what comes back."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from typing import Any

import pytest
from tests.unit.client.kinds import KINDS, Clock, Kind, settle

from penstock_client import (
    AsyncClient,
    AsyncMockTransport,
    Call,
    Client,
    Job,
    JobSpec,
    MockTransport,
    TensorError,
    UnavailableError,
)
from penstock_client._messages import jobs_pb

EVERY = JobSpec(
    "m",
    "in.csv",
    "out",
    model_version="3",
    input_format="csv",
    output_format="parquet",
    maps={"x": ("a", "b")},
    key="id",
    keep=("c",),
    round=True,
    batch_size=1,
    in_flight=2,
    part_rows=3,
    limit=0,
    max_rejects=0,
    overwrite=True,
)


class Server:
    """Keeps what it is asked and answers with the job that was submitted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.refusals = 0

    def __call__(self, call: Call, request: Any) -> Any:
        assert request.DESCRIPTOR is call.method.request.DESCRIPTOR
        self.asked.append((call.method.path, request))
        if self.refusals:
            self.refusals -= 1
            raise UnavailableError("not now")
        if call.method.name == "List":
            return jobs_pb.ListResponse(jobs=[jobs_pb.Job(id="a")])
        if call.method.name == "Submit":
            return jobs_pb.Job(id=request.id, spec=request.spec, state="QUEUED", submitted_ms=7)
        return jobs_pb.Job(id=request.id)


@pytest.mark.parametrize("kind", KINDS)
async def test_spec_goes_out_whole_and_comes_back(kind: Kind) -> None:
    server = Server()
    job = await settle(kind.client(server).jobs.submit(EVERY, "j"))
    assert job == Job("j", EVERY, "QUEUED", submitted_ms=7)
    path, request = server.asked[0]
    assert path == "/penstock.v1.JobService/Submit"
    set_fields = {field.name for field, _ in request.spec.ListFields()}
    assert set_fields == {field.name for field in request.spec.DESCRIPTOR.fields}


def test_spec_has_every_field_of_the_protocol() -> None:
    assert {field.name for field in fields(JobSpec)} == {
        field.name for field in jobs_pb.JobSpec.DESCRIPTOR.fields
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_absent_limits_stay_absent(kind: Kind) -> None:
    server = Server()
    job = await settle(kind.client(server).jobs.submit(JobSpec("m", "i", "o")))
    assert (job.spec.limit, job.spec.max_rejects, job.rows_total) == (None, None, None)
    assert not server.asked[0][1].spec.HasField("limit")


@pytest.mark.parametrize("kind", KINDS)
async def test_submission_without_an_id_is_sent_again_as_the_same_job(kind: Kind) -> None:
    server = Server()
    server.refusals = 1
    job = await settle(kind.client(server, clock=Clock()).jobs.submit(JobSpec("m", "i", "o")))
    first, second = (request.id for _, request in server.asked)
    assert first == second == job.id != ""


@pytest.mark.parametrize("kind", KINDS)
async def test_get_cancel_and_list(kind: Kind) -> None:
    server = Server()
    jobs = kind.client(server).jobs
    assert (await settle(jobs.get("j"))).id == "j"
    assert (await settle(jobs.cancel("j"))).id == "j"
    assert [job.id for job in await settle(jobs.list())] == ["a"]
    assert [path.rpartition("/")[2] for path, _ in server.asked] == ["Get", "Cancel", "List"]


@pytest.mark.parametrize("kind", KINDS)
async def test_value_that_cannot_be_sent_is_refused_by_name(kind: Kind) -> None:
    server = Server()
    with pytest.raises(TensorError, match=r"job 'j' of model 'm': .*(-1|batch_size)"):
        await settle(kind.client(server).jobs.submit(JobSpec("m", "i", "o", batch_size=-1), "j"))
    assert server.asked == []


STATES = ("QUEUED", "RUNNING", "FAILED")


def watched(call: Call, requests: list[Any]) -> Iterator[Any]:
    assert call.timeout_s is None
    assert [request.id for request in requests] == ["j"]
    for rows, state in enumerate(STATES):
        yield jobs_pb.Job(id="j", state=state, rows=rows, rows_total=9, message="why")


def test_watch_yields_every_change_until_the_end() -> None:
    transport = MockTransport(Server(), lambda call, requests: watched(call, list(requests)))
    with Client("mock", transport=transport) as client:
        seen = list(client.jobs.watch("j"))
    assert [job.state for job in seen] == list(STATES)
    assert [job.has_ended for job in seen] == [False, False, True]
    assert (seen[-1].rows, seen[-1].rows_total, seen[-1].message) == (2, 9, "why")


async def test_watch_yields_every_change_with_asyncio() -> None:
    async def stream(call: Call, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for answer in watched(call, [request async for request in requests]):
            yield answer

    async def unary(call: Call, request: Any) -> Any:
        raise AssertionError(call)

    async with AsyncClient("mock", transport=AsyncMockTransport(unary, stream)) as client:
        seen = [job async for job in client.jobs.watch("j")]
    assert [job.state for job in seen] == list(STATES)
