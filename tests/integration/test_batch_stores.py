"""Batch jobs from and to object stores, each spoken to over its own API by pyarrow's filesystem."""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.cli import Finished, penstock
from tests.support.fake_batch import FakeEngine, run, write_rows
from tests.support.fixture_models import FIXTURE_BACKENDS, write_identity
from tests.support.killed_job import run_killed
from tests.support.object_stores import STORES, Store
from tests.support.run_server import run_server, server_config

from penstock.jobs.failures import JobError
from penstock.jobs.storage import Storage
from penstock_client import AsyncClient, JobSpec

pytestmark = pytest.mark.any_transport

ROWS = 100
HALVES = ("part one", "part-two=2")


@pytest.fixture(
    scope="module",
    params=["s3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gcs", "azure"))],
)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with STORES[request.param]() as store:
        for half, name in enumerate(HALVES):
            values = np.arange(ROWS, dtype=np.float32).reshape(-1, 2) + half * ROWS
            put(store, f"in/{name}.parquet", pa.table({"INPUT0": values.tolist()}))
        yield store


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, ...]:
    write_identity(tmp_path)
    return ("--repository", str(tmp_path), "--backend-directory", str(FIXTURE_BACKENDS))


def put(store: Store, name: str, table: Any) -> None:
    store.put(name, lambda stream: pq.write_table(table, stream))


def outputs(uri: str, column: str = "OUTPUT0") -> list[Any]:
    storage = Storage(uri)
    parts = [storage.read(name) for name in storage.names() if name.startswith("part-")]
    tables = [pq.read_table(io.BytesIO(part or b"")) for part in parts]
    return pa.concat_tables(tables)[column].to_pylist()  # type: ignore[no-any-return]


EXPECTED = np.arange(2 * ROWS).reshape(-1, 2).tolist()


async def batch(store: Store, output: str, *flags: str) -> Finished:
    places = ("--input", store.uri("in/"), "--output", store.uri(output))
    done = await penstock("batch", "identity", *places, *flags)
    assert store.secret not in done.out + done.err
    return done


async def test_rows_of_a_prefix_go_to_a_prefix_and_the_manifest_says_so(
    store: Store, model: tuple[str, ...]
) -> None:
    done = await batch(store, "out", "--part-rows", "30", "--round", *model)
    assert (done.code, done.out.split(";")[0]) == (0, "done: 100 rows in 4 parts"), done.err
    storage = Storage(store.uri("out"))
    assert storage.names() == ["manifest.json", *(f"part-0000{n}.parquet" for n in range(4))]
    assert storage.names("_work") == []
    assert outputs(store.uri("out")) == EXPECTED
    text = (storage.read("manifest.json") or b"").decode()
    assert store.secret not in text
    manifest = json.loads(text)
    assert (manifest["job"]["input"]["files"], manifest["counts"]["rows_out"]) == (2, 100)
    for part in manifest["outputs"]:
        digest = hashlib.sha256(storage.read(part["name"]) or b"").hexdigest()
        assert part["sha256"] == digest
    again = await batch(store, "out", "--part-rows", "30", "--round", *model)
    assert (again.code, "already done" in again.out) == (0, True), again.out
    other = await batch(store, "out", "--part-rows", "50", "--round", *model)
    assert (other.code, "holds outputs of another job" in other.err) == (2, True), other.err


async def test_shards_share_a_prefix_and_the_last_writes_the_manifest(
    store: Store, model: tuple[str, ...]
) -> None:
    for index in range(2):
        assert Storage(store.uri("shards")).read("manifest.json") is None
        flags = ("--part-rows", "10", "--round", "--shard", f"{index}/2", *model)
        done = await batch(store, "shards", *flags)
        assert done.code == 0, done.err
    assert Storage(store.uri("shards")).read("manifest.json") is not None
    assert outputs(store.uri("shards")) == EXPECTED


def test_killed_job_goes_on_without_repeating_or_losing_a_row(store: Store, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 200)
    put(store, "killed/in.parquet", pq.read_table(tmp_path / "in.parquet"))
    source, output = store.uri("killed/in.parquet"), store.uri("killed/out")
    may_be = (b"",) if store.has_empty_uploads else ()
    options: Any = {"part_rows": 32, "keep": ("id",)}
    deaths = run_killed(source, output, itertools.count(7), 2000, may_be, **options)
    assert deaths >= 3
    assert outputs(output, "id") == list(range(200))
    assert outputs(output, "Y") == [2.0 * (row + 100) for row in range(200)]
    assert Storage(output).names("_work") == []


def test_file_that_is_given_up_is_not_there_and_what_was_before_is(store: Store) -> None:
    storage = Storage(store.uri("given-up"))
    for content in (b"", b"x" * (20 << 20)):  # the second is an upload in parts
        with suppress(ZeroDivisionError), storage.create("new") as sink:
            sink.write(content)
            assert storage.names() == []
            raise ZeroDivisionError
        assert storage.names() == []
    storage.write("old", b"before")
    with suppress(ZeroDivisionError), storage.create("old") as sink:
        sink.write(b"half of")
        raise ZeroDivisionError
    assert storage.read("old") == b"before"
    with storage.create("new") as sink:
        sink.write(b"x" * (20 << 20))
    assert storage.read("new") == b"x" * (20 << 20)


async def test_bucket_that_is_not_there_ends_the_job_with_its_name_and_no_secret(
    store: Store, tmp_path: Path
) -> None:
    write_rows(tmp_path / "in.parquet", 10)
    nowhere = store.uri("out", bucket="no-such-bucket")
    with pytest.raises(JobError, match="no-such-bucket/out") as caught:
        await run(FakeEngine(), tmp_path / "in.parquet", nowhere)
    assert store.secret not in str(caught.value)


async def test_server_runs_jobs_within_a_prefix(store: Store, tmp_path: Path) -> None:
    write_identity(tmp_path)
    config = server_config(tmp_path, jobs_root=(store.uri("served"),))
    put(store, "served/in.parquet", pa.table({"INPUT0": EXPECTED}))
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        job = await client.jobs.submit(JobSpec("identity", "in.parquet", "out", round=True), "j")
        states = [job async for job in client.jobs.watch(job.id)]
    assert (states[-1].state, states[-1].rows) == ("DONE", 100), states[-1].message
    assert outputs(store.uri("served/out")) == EXPECTED
    kept = Storage(store.uri("served/.jobs"))
    assert kept.names() != []
