"""A job as a whole, with a model in this process: resume, shards, refusals, and no row lost."""

import asyncio
import hashlib
import itertools
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.fake_batch import FakeEngine, info, outputs, run, write_rows
from tests.support.killed_job import run_killed

from penstock.jobs.failures import JobError, PlanError, TemporaryError
from penstock.jobs.planning import JobOptions, plan_job
from penstock.jobs.storage import Storage, only_one


def expected(rows: int) -> list[float]:
    return [2.0 * (row + 100) for row in range(rows)]


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


async def test_manifest_says_what_there_is(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 300)
    result = await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", part_rows=100)
    assert (result.state, result.parts) == ("done", 3)
    found = manifest(tmp_path / "out")
    assert found["counts"] == {"rows_in": 300, "rows_out": 300, "rows_rejected": 0}
    assert found["job"]["model"] == {"name": "m", "version": "1", "digest": "digest"}
    for entry in found["outputs"]:
        content = (tmp_path / "out" / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert len(content) == entry["size_bytes"]
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert sorted(name for name in names if not name.startswith(".")) == [
        "manifest.json",
        *(f"part-0000{n}.parquet" for n in range(3)),
    ]
    assert outputs(tmp_path / "out")["Y"].to_pylist() == expected(300)


@pytest.mark.parametrize("asked", [0, 8])
async def test_bound_of_a_models_requests_holds_for_every_request(
    tmp_path: Path, asked: int
) -> None:
    write_rows(tmp_path / "in.parquet", 50)
    engine = FakeEngine(replace(info(), most_request_rows=3))
    await run(engine, tmp_path / "in.parquet", tmp_path / "out", request_rows=asked)
    assert max(engine.rows) == 3
    assert outputs(tmp_path / "out")["Y"].to_pylist() == expected(50)


async def test_job_goes_on_under_another_bound_of_its_requests(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    options = JobOptions("m", str(tmp_path / "in.parquet"), str(tmp_path / "out"))
    first, second = [
        await plan_job(FakeEngine(replace(info(), most_request_rows=most)), options)
        for most in (0, 3)
    ]
    assert (first.sizes.request_rows, second.sizes.request_rows) == (8, 3)
    assert first.identity == second.identity
    assert first.sizes.block_rows == second.sizes.block_rows


async def test_finished_job_is_not_done_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out")
    engine = FakeEngine()
    result = await run(engine, tmp_path / "in.parquet", tmp_path / "out")
    assert (result.state, result.rows_out, engine.rows) == ("already done", 30, [])
    result = await run(engine, tmp_path / "in.parquet", tmp_path / "out", resume=False)
    assert (result.state, sum(engine.rows)) == ("done", 30)


async def test_outputs_of_another_job_are_kept_unless_said_otherwise(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 300)
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", part_rows=100)
    other = FakeEngine(info(version="2"))
    with pytest.raises(PlanError, match="holds outputs of another job") as caught:
        await run(other, tmp_path / "in.parquet", tmp_path / "out", part_rows=200)
    assert [line.partition(":")[0] for line in caught.value.lines[1:]] == ["model", "part_rows"]
    options: dict[str, Any] = {"part_rows": 200, "overwrite": True}
    await run(other, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert outputs(tmp_path / "out")["Y"].to_pylist() == expected(300)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2


async def test_changed_input_is_another_job(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out")
    write_rows(tmp_path / "in.parquet", 31)
    with pytest.raises(PlanError, match="another job"):
        await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out")


async def test_directory_with_a_foreign_manifest_is_left_alone(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"mine": true}')
    with pytest.raises(PlanError, match="is no manifest of a batch job"):
        await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("output_format", ["parquet", "feather", "csv", "jsonl", "npz"])
async def test_no_rows_give_an_empty_part_with_the_columns(
    tmp_path: Path, output_format: str
) -> None:
    write_rows(tmp_path / "in.parquet", 0)
    options = {"output_format": output_format, "keep": ("id",)}
    result = await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
    assert (result.state, result.rows_in, result.parts) == ("done", 0, 1)
    assert manifest(tmp_path / "out")["outputs"][0]["rows"] == 0
    if output_format == "parquet":
        schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
        assert (schema.names, schema.field("Y").type) == (["id", "Y"], pa.float32())


async def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 300)
    options: dict[str, Any] = {"limit": 130, "part_rows": 50}
    result = await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
    assert result.rows_out == 130
    assert outputs(tmp_path / "out")["Y"].to_pylist() == expected(130)


async def test_shards_write_parts_of_their_own_and_the_last_one_the_manifest(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "in.parquet", 500)
    states = []
    for index in (2, 0, 1):
        options: dict[str, Any] = {"shard": (index, 3), "part_rows": 64}
        result = await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
        states.append(result.state)
    assert states == ["shard done", "shard done", "done"]
    assert outputs(tmp_path / "out")["Y"].to_pylist() == expected(500)
    assert manifest(tmp_path / "out")["counts"]["rows_out"] == 500


async def test_shards_at_the_same_time_finish_the_job(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 500)
    shards = [{"shard": (index, 3), "part_rows": 64} for index in range(3)]
    runs = (run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **s) for s in shards)
    results = await asyncio.gather(*runs)
    assert "done" in {result.state for result in results}
    assert outputs(tmp_path / "out")["Y"].to_pylist() == expected(500)


async def test_part_whose_file_is_gone_is_done_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 200)
    options: dict[str, Any] = {"part_rows": 50, "shard": (0, 2)}
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
    (tmp_path / "out" / "part-00002.parquet").unlink()
    engine = FakeEngine()
    await run(engine, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert sum(engine.rows) == 50


async def test_damaged_record_does_not_count(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 200)
    options: dict[str, Any] = {"part_rows": 50, "shard": (0, 2)}
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
    record = tmp_path / "out" / "_work" / "part-00002.json"
    record.write_text(record.read_text().replace('"rows": 50', '"rows": 51'))
    engine = FakeEngine()
    await run(engine, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert sum(engine.rows) == 50


async def test_two_runs_of_one_job_do_not_mix(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    with only_one(Storage(str(tmp_path / "out")), "_work/.lock-0"):
        with pytest.raises(JobError, match="another process works on"):
            await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", overwrite=True)


async def test_object_store_gets_whole_parts_and_the_manifest_last(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 200)
    uri = f"memory://{tmp_path.name}/out"
    result = await run(FakeEngine(), tmp_path / "in.parquet", uri, part_rows=64, keep=("id",))
    assert (result.state, result.parts) == ("done", 4)
    storage = Storage(uri)
    assert storage.names() == ["manifest.json", *(f"part-0000{n}.parquet" for n in range(4))]
    assert storage.names("_work") == []
    again = await run(FakeEngine(), tmp_path / "in.parquet", uri, part_rows=64, keep=("id",))
    assert again.state == "already done"


async def test_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("precious")
    scratch = tmp_path / "out" / ".part-00000.parquet.tmp-1"
    scratch.symlink_to(tmp_path / "victim")
    with pytest.raises(TemporaryError, match=r"cannot write .*part-00000.parquet"):
        with Storage(str(tmp_path / "out")).create("part-00000.parquet", ".tmp-1"):
            pass
    scratch.symlink_to(tmp_path / "victim")  # as what a killed process left
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out")
    assert not scratch.is_symlink()
    assert (tmp_path / "victim").read_text() == "precious"


async def test_what_a_killed_process_left_of_its_shard_is_removed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 300)
    names = [f".part-0000{part}.parquet.tmp-1-host" for part in range(2)]
    for folder in ("out", "out/rejects"):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("half a part")
    options: dict[str, Any] = {"part_rows": 100}
    for index in range(2):
        await run(
            FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", shard=(index, 2), **options
        )
        left = [path.name for path in (tmp_path / "out").rglob(".part-*")]
        assert left == [] if index else left == [names[1]] * 2


async def test_full_disk_is_temporary_and_leaves_what_is_committed(tmp_path: Path) -> None:
    import resource

    write_rows(tmp_path / "in.parquet", 400)
    options: dict[str, Any] = {"part_rows": 100, "output_format": "jsonl"}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, hard))  # a part takes more
    try:
        with pytest.raises(
            TemporaryError, match=r"cannot write .*part-00000.jsonl: File too large"
        ):
            await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list((tmp_path / "out").glob("*part-*"))
    result = await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **options)
    assert (result.state, result.rows_out) == ("done", 400)


def killed_until_done(tmp_path: Path, seed: int, kills: int) -> int:
    """Rows that a job leaves after so many deaths at least, each where chance wants it."""
    source, rows = tmp_path / "in.parquet", 400
    write_rows(source, rows)
    seeds = itertools.count(seed * 1000)
    deaths, attempt = 0, 0
    while deaths < kills:
        output = tmp_path / f"out-{attempt}"
        attempt += 1
        deaths += run_killed(source, output, seeds, calls=2500, part_rows=32, keep=("id",))
        assert outputs(output)["id"].to_pylist() == list(range(rows))
        assert outputs(output)["Y"].to_pylist() == expected(rows)
        assert manifest(output)["counts"]["rows_out"] == rows
        assert not list(output.glob(".part-*"))
    return deaths


def test_killed_job_goes_on_without_repeating_or_losing_a_row(tmp_path: Path) -> None:
    assert killed_until_done(tmp_path, seed=1, kills=15) >= 15


@pytest.mark.slow
def test_job_killed_many_times_goes_on(tmp_path: Path) -> None:
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.randrange(1 << 20)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    assert killed_until_done(tmp_path, seed=seed, kills=300) >= 300


def test_rows_keep_their_order_whatever_the_order_of_answers(tmp_path: Path) -> None:
    class Shuffled(FakeEngine):
        async def infer(self, model: Any, inputs: Any) -> Any:
            for _ in range(random.Random(int(inputs[0].values[0, 0])).randrange(5)):
                await asyncio.sleep(0)
            return await super().infer(model, inputs)

    write_rows(tmp_path / "in.parquet", 500)
    asyncio.run(run(Shuffled(), tmp_path / "in.parquet", tmp_path / "out", in_flight=7))
    assert np.array_equal(outputs(tmp_path / "out")["Y"].to_numpy(), expected(500))
