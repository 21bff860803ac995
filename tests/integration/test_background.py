"""Background requests beside others, on both transports: jobs of the server, and by parameter."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.cli import penstock
from tests.support.fixture_models import write_blocked, write_identity
from tests.support.http import ask
from tests.support.raw_grpc import RawClient
from tests.support.requests import identity_request, tensor
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

from penstock import codec
from penstock._messages import jobs_pb

PATIENCE_S = 60
ROWS = 100
BOUND = 3
WHERE = ("pending", "running")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_identity(tmp_path / "models", execute_delay_ms="2")
    write_blocked(tmp_path / "models", tmp_path / "gate")
    return tmp_path / "models"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of jobs, with 100 rows of two floats."""
    (tmp_path / "jobs").mkdir()
    values = np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2)
    table = pa.table({"INPUT0": pa.array(values.tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "jobs" / "in.parquet", row_group_size=10)
    return tmp_path / "jobs"


@asynccontextmanager
async def serving(
    repository: Path, root: Path, **settings: Any
) -> AsyncIterator[tuple[RunningServer, RawClient]]:
    settings = {"jobs_root": (str(root),), "background_batch_size": BOUND, **settings}
    config = server_config(repository, **settings)
    async with run_server(config) as server, server.client() as client:
        yield server, client


async def infer(client: RawClient, request: Any, **options: Any) -> Any:
    answer = await client.unary("ModelInfer", request.SerializeToString(), **options)
    return wire.ModelInferResponse.FromString(answer)


async def job(client: RawClient, rpc: str, request: Any) -> Any:
    path = f"/{codec.JOBS_SERVICE_NAME}/{rpc}"
    call = client.channel.unary_unary(path, None, jobs_pb.Job.FromString)
    return await call(request.SerializeToString(), timeout=PATIENCE_S)


async def submit(client: RawClient, model: str) -> None:
    spec = jobs_pb.JobSpec(model=model, input="in.parquet", output="out", in_flight=8)
    await job(client, "Submit", jobs_pb.SubmitRequest(id="j", spec=spec))


async def end_of_job(client: RawClient) -> str:
    """The state that the job ended in."""
    path = f"/{codec.JOBS_SERVICE_NAME}/Watch"
    watch = client.channel.unary_stream(path, None, jobs_pb.Job.FromString)
    request = jobs_pb.JobRequest(id="j").SerializeToString()
    seen = [view async for view in watch(request, timeout=PATIENCE_S)]
    state: str = jobs_pb.Job.State.Name(seen[-1].state)
    return state


async def metrics(server: RunningServer, model: str) -> dict[str, float]:
    """The samples of a model's version, those with further labels left out."""
    text = (await ask(server.metrics_port, "/metrics")).body.decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels == {"model": model, "version": "1"}
    }


async def until(
    server: RunningServer, model: str, is_so: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so(found := await metrics(server, model)):
            pass
    return found


def rows_of(output: Path) -> Any:
    parts = [pq.read_table(part) for part in sorted(output.glob("part-*"))]
    return pa.concat_tables(parts)["OUTPUT0"].to_pylist()


def background(rows: int, model: str = "identity") -> Any:
    """A background request of so many rows [7, 8]."""
    request = identity_request([7, 8], model=model)
    request.inputs[0].CopyFrom(tensor("INPUT0", "FP32", [rows, 2]))
    request.raw_input_contents[0] = struct.pack("<2f", 7, 8) * rows
    request.parameters["penstock_background"].bool_param = True
    return request


async def test_job_beside_other_requests_all_are_answered_and_counted_apart(
    repository: Path, root: Path
) -> None:
    async with serving(repository, root) as (server, client):
        answered = 0
        has_ended = asyncio.Event()

        async def ask_on() -> None:
            nonlocal answered
            while not has_ended.is_set():  # four at a time: behind them there is room
                asked = [infer(client, identity_request([each, answered])) for each in range(4)]
                for number, response in enumerate(await asyncio.gather(*asked)):
                    values = struct.unpack("<2f", response.raw_output_contents[0])
                    assert values == (number, answered)
                answered += 4

        asking = asyncio.ensure_future(ask_on())
        await submit(client, "identity")
        assert await end_of_job(client) == "DONE"
        has_ended.set()
        await asking
        assert rows_of(root / "out") == np.arange(2 * ROWS).reshape(ROWS, 2).tolist()
        found = await metrics(server, "identity")
    assert answered > 0
    assert found["penstock_background_rows_total"] == ROWS
    assert found["penstock_background_batches_total"] > 0
    assert found["penstock_background_pending_requests"] == 0
    assert found["penstock_background_running_requests"] == 0
    assert found["penstock_background_busy_seconds_total"] > 0
    assert found["nv_inference_count_total"] == answered
    assert found["nv_inference_request_success_total"] == answered
    assert found["penstock_queue_duration_seconds_count"] == answered


async def test_job_without_room_waits_and_its_cancellation_ends_what_is_queued(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root) as (server, client):
        other = asyncio.ensure_future(infer(client, identity_request([1], model="blocked")))
        await until(server, "blocked", lambda found: found["penstock_running_requests"] == 1)
        await submit(client, "blocked")
        waiting = "penstock_background_pending_requests"
        found = await until(server, "blocked", lambda found: found[waiting] == 8)
        assert found["penstock_pending_requests"] == 0
        assert found["nv_inference_pending_request_count"] == 0
        cancelled = await job(client, "Cancel", jobs_pb.JobRequest(id="j"))
        assert jobs_pb.Job.State.Name(cancelled.state) == "CANCELLED"
        assert (await metrics(server, "blocked"))[waiting] == 0
        assert not other.done()
        (tmp_path / "gate").touch()
        await other
        found = await metrics(server, "blocked")
    assert found["penstock_background_rows_total"] == 0
    assert found["nv_inference_count_total"] == 1


async def test_job_that_waits_goes_on_with_the_version_that_follows(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    mode = {"model_control_mode": "explicit", "load_model": ("blocked",)}
    async with serving(repository, root, **mode) as (server, client):
        other = asyncio.ensure_future(infer(client, identity_request([1, 2], model="blocked")))
        await until(server, "blocked", lambda found: found["penstock_running_requests"] == 1)
        await submit(client, "blocked")
        waiting, running = (f"penstock_background_{each}_requests" for each in WHERE)
        await until(server, "blocked", lambda found: found[waiting] == 8)
        write_blocked(repository, tmp_path / "gate", config="# changed")
        load = wire.RepositoryModelLoadRequest(model_name="blocked").SerializeToString()
        loading = asyncio.ensure_future(client.unary("RepositoryModelLoad", load))
        # The version that is being unloaded runs the other request until the gate opens.
        await until(server, "blocked", lambda found: found[running] == 1 and found[waiting] == 7)
        assert not other.done()
        (tmp_path / "gate").touch()
        assert await end_of_job(client) == "DONE"
        await asyncio.gather(other, loading)
        assert rows_of(root / "out") == np.arange(2 * ROWS).reshape(ROWS, 2).tolist()
        found = await metrics(server, "blocked")
    assert found["penstock_background_rows_total"] == ROWS


async def test_parameter_makes_any_request_a_background_request(
    repository: Path, root: Path
) -> None:
    async with serving(repository, root) as (server, client):
        response = await infer(client, background(BOUND))
        assert response.raw_output_contents[0] == struct.pack("<2f", 7, 8) * BOUND
        found = await metrics(server, "identity")
        assert found["penstock_background_rows_total"] == BOUND
        assert found["nv_inference_count_total"] == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(client, background(BOUND + 1))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == (
            "a background request for 'identity' has at most 3 rows (--background-batch-size), "
            "got 4"
        )


async def test_lowered_requests_leave_places_in_flight_to_others(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root, max_inflight_requests=4) as (server, client):
        low = [asyncio.ensure_future(infer(client, background(1, "blocked"))) for _ in range(2)]
        await until(
            server,
            "blocked",
            lambda found: sum(found[f"penstock_background_{each}_requests"] for each in WHERE) == 2,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(client, background(1))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == (
            "the server is busy: 2 background requests are in flight, which is their share"
        )
        others = [infer(client, identity_request([each])) for each in range(2)]
        assert len(await asyncio.gather(*others)) == 2
        (tmp_path / "gate").touch()
        await asyncio.gather(*low)
        await infer(client, background(1))


async def test_job_leaves_places_in_flight_to_others(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root, max_inflight_requests=8) as (server, client):
        other = asyncio.ensure_future(infer(client, identity_request([1, 2], model="blocked")))
        await until(server, "blocked", lambda found: found["penstock_running_requests"] == 1)
        await submit(client, "blocked")  # with 8 in flight, of which the core gets 2
        waiting = "penstock_background_pending_requests"
        await until(server, "blocked", lambda found: found[waiting] == 2)
        asked = [infer(client, identity_request([each])) for each in range(5)]
        assert len(await asyncio.gather(*asked)) == 5
        assert server.app.core.engine.inflight() == 3
        (tmp_path / "gate").touch()
        assert await end_of_job(client) == "DONE"
        await other
    assert rows_of(root / "out") == np.arange(2 * ROWS).reshape(ROWS, 2).tolist()


async def test_deadline_ends_a_background_request_that_has_no_turn(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root) as (server, client):
        other = asyncio.ensure_future(infer(client, identity_request([1], model="blocked")))
        await until(server, "blocked", lambda found: found["penstock_running_requests"] == 1)
        low = asyncio.ensure_future(infer(client, background(1, "blocked"), timeout=2))
        await until(
            server, "blocked", lambda found: found["penstock_background_pending_requests"] == 1
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await low
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(
            server, "blocked", lambda found: found["penstock_background_pending_requests"] == 0
        )
        (tmp_path / "gate").touch()
        await other


async def test_batch_command_runs_in_the_background_of_a_server(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    async with serving(repository, root) as (server, _):
        where = ("--input", str(root / "in.parquet"), "--output", str(tmp_path / "out"))
        flags = ("--server", server.grpc_address, "--background", *where)
        result = await penstock("batch", "identity", *flags)
        assert (result.code, result.err) == (0, "")
        assert rows_of(tmp_path / "out") == np.arange(2 * ROWS).reshape(ROWS, 2).tolist()
        found = await metrics(server, "identity")
    assert found["penstock_background_rows_total"] == ROWS
    assert found["nv_inference_count_total"] == 0


@pytest.mark.any_transport
async def test_batch_command_has_a_background_only_where_there_is_a_server(root: Path) -> None:
    where = ("--input", str(root / "in.parquet"), "--output", str(root / "out"))
    result = await penstock("batch", "m", "--repository", str(root), "--background", *where)
    assert result.code == 2
    assert "--background and --server HOST:PORT go together" in result.err
