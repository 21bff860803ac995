"""`penstock batch --store`: the model of the store that online servers load, version and all."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.cli import Finished, finished, penstock, started
from tests.support.store_world import World, serving

from penstock.store.records import Reference
from penstock.store.store import open_store

pytestmark = [pytest.mark.any_transport, pytest.mark.lengthy]

ROWS = 3000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Version 1 adds 1, version 2 adds 2; prod is version 1."""
    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        world.push(2.0)
        opened.alias("m", "prod", 1)
        yield world


def arguments(world: World, reference: str, *flags: str, output: str = "out") -> list[str]:
    rows = world.place / "rows.npy"
    if not rows.exists():
        np.save(rows, np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2))
    where = ("--input", str(rows), "--output", str(world.place / output))
    cache = ("--store-cache", str(world.place / "cache"))
    named = ("--store", world.url)
    return ["batch", reference, *where, *named, *cache, *flags]


async def batch(world: World, reference: str, *flags: str, output: str = "out") -> Finished:
    return await penstock(*arguments(world, reference, *flags, output=output))


def added(world: World, output: str = "out") -> float:
    """What was added to every row, which must be there once and in order."""
    parts = sorted((world.place / output).glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    got = np.array(table["OUTPUT0"].to_pylist(), np.float32)
    expected = np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2)
    assert got.shape == expected.shape
    (difference,) = set((got - expected).ravel().tolist())  # one, so one version
    return float(difference)


def model_of(world: World, output: str = "out") -> dict[str, Any]:
    """What the manifest says of the model."""
    manifest = json.loads((world.place / output / "manifest.json").read_text())
    found: dict[str, Any] = manifest["job"]["model"]
    return found


async def test_alias_version_and_latest_are_what_the_store_means(world: World) -> None:
    for number, (reference, version) in enumerate((("m@prod", 1), ("m@2", 2), ("m", 2))):
        result = await batch(world, reference, output=f"out{number}")
        assert (result.code, result.err) == (0, "")
        assert added(world, f"out{number}") == version
        record = world.store.show(Reference("m", version))
        expected = {"name": "m", "version": str(version), "digest": record.digest}
        assert model_of(world, f"out{number}") == expected


async def test_online_and_batch_answer_from_one_version_in_one_cache(world: World) -> None:
    world.deploy("m@prod")
    async with serving(world.config()) as asked:
        version, value = await asked.answer()
        assert (await batch(world, "m@prod")).code == 0
    assert (model_of(world)["version"], added(world)) == (version, value)
    assert len(list((world.place / "cache" / "models").iterdir())) == 1


async def test_killed_job_goes_on_with_its_version_though_the_alias_moved(world: World) -> None:
    flags = ("--part-rows", "10", "--batch-size", "1")
    async with started(*arguments(world, "m@prod", *flags)) as process:
        while len(list((world.place / "out").glob("part-*"))) < 3:
            assert process.returncode is None, await finished(process)
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    assert not (world.place / "out" / "manifest.json").exists()
    world.store.alias("m", "prod", 2)
    result = await batch(world, "m@prod", *flags)
    note = "m@prod is version 2 now; these outputs go on with version 1, which began them\n"
    assert (result.code, result.err) == (0, note)
    assert (added(world), model_of(world)["version"]) == (1, "1")
    assert " of them earlier" in result.out


async def test_begun_outputs_are_no_other_versions(world: World) -> None:
    flags = ("--part-rows", "1000", "--shard")
    assert (await batch(world, "m@prod", *flags, "0/2")).code == 0
    other = await batch(world, "m@2", *flags, "1/2")
    assert (other.code, "holds outputs of another job" in other.err) == (2, True)
    assert '"version": "1"' in other.err
    assert '"version": "2"' in other.err
    world.store.alias("m", "prod", None)
    last = await batch(world, "m@prod", *flags, "1/2")
    gone = "m@prod is no more; these outputs go on with version 1, which began them\n"
    assert (last.code, last.err) == (0, gone)
    assert added(world) == 1


async def test_finished_outputs_are_not_taken_for_those_of_a_version_that_followed(
    world: World,
) -> None:
    assert (await batch(world, "m@prod")).code == 0
    again = await batch(world, "m@prod")
    assert (again.code, again.out.startswith("already done")) == (0, True)
    world.store.alias("m", "prod", 2)
    moved = await batch(world, "m@prod")
    assert (moved.code, "holds outputs of another job" in moved.err) == (2, True)
    assert (await batch(world, "m@prod", "--overwrite")).code == 0
    assert (added(world), model_of(world)["version"]) == (2, "2")


async def test_damaged_copy_in_the_cache_is_fetched_anew(world: World) -> None:
    assert (await batch(world, "m@prod", "--dry-run")).code == 0
    (file,) = (world.place / "cache").rglob("model.onnx")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"constant", b"CONSTANT"))
    assert (await batch(world, "m@prod")).code == 0
    assert added(world) == 1


async def test_damaged_bytes_of_the_store_are_not_run(world: World) -> None:
    for blob in (world.place / "store" / "artifacts").rglob("*"):
        if blob.is_file() and b"OUTPUT0" in blob.read_bytes():
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    result = await batch(world, "m@prod")
    assert (result.code, "m" in result.err) == (1, True)
    assert not (world.place / "out").exists()


@pytest.mark.parametrize(
    ("reference", "flags", "code", "fragment"),
    [
        ("m@nobody", (), 2, "alias 'nobody'"),
        ("m@3x!", (), 2, "is no name of an alias"),
        ("m", ("--model-version", "1"), 2, "--store and --model-version: say m@1"),
        ("m", ("--repository", "."), 2, "--store goes with neither --server nor"),
        ("m", ("--store", "postgresql://localhost:1/x"), 75, "localhost:1"),
        ("m", ("--store", "/nowhere"), 2, "there is no store at '/nowhere'"),
    ],
)
async def test_exit_code_says_what_is_wrong(
    world: World, reference: str, flags: tuple[str, ...], code: int, fragment: str
) -> None:
    result = await batch(world, reference, *flags)
    assert (result.code, fragment in " ".join(result.err.split())) == (code, True), result.err
    assert not (world.place / "out").exists()


async def test_archived_version_is_refused(world: World) -> None:
    world.store.archive(Reference("m", 1))
    result = await batch(world, "m@prod")
    text = "Error: alias 'prod' of 'm' points to version 1, which is archived\n"
    assert (result.code, result.err) == (2, text)


async def test_cache_without_room_is_temporary(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_CACHE_BYTES", "10")
    result = await batch(world, "m@prod")
    assert (result.code, "the cache has no room" in result.err) == (75, True), result.err
