"""Outputs in the way: the input itself, what others left, what a crash left half removed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.support.fake_batch import FakeEngine, info, outputs, run, write_rows

from penstock.jobs.failures import JobError, PlanError, TemporaryError, engine_error
from penstock.jobs.ledger import Ledger
from penstock.jobs.model import TensorRows
from penstock.jobs.storage import Storage


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("data", "data"),
        ("data", "data/out"),
        ("data/in.parquet", "data"),
        ("data/*.parquet", "data"),
        ("data", "."),
        ("data/in.parquet", "link"),
        ("link", "data/out"),
        ("data/in.parquet", "data/in.parquet"),
    ],
)
async def test_output_that_overlaps_the_input_is_refused(
    tmp_path: Path, source: str, output: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    write_rows(tmp_path / "data" / "in.parquet", 30)
    with pytest.raises(PlanError, match="the input .*use another directory"):
        await run(FakeEngine(), tmp_path / source, tmp_path / output, overwrite=True)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["in.parquet"]


async def test_output_beside_the_files_of_a_pattern_is_taken(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    await run(FakeEngine(), tmp_path / "*.parquet", tmp_path / "out")
    assert len(outputs(tmp_path / "out")) == 30


async def test_parts_of_no_known_job_are_kept_unless_said_otherwise(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 30)
    foreign = tmp_path / "out" / "part-00007.parquet"
    foreign.parent.mkdir()
    foreign.write_text("precious")
    with pytest.raises(PlanError, match="holds parts of no known job; --overwrite"):
        await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", resume=False)
    assert foreign.read_text() == "precious"
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == ["part-00000.parquet"]


async def test_clearing_that_a_crash_ended_is_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in.parquet", 300)
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    await run(FakeEngine(), source, output, part_rows=50)
    remove, calls = Storage.remove, 0

    def die_after_the_manifest(storage: Storage, names: list[str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyError("the process died")
        remove(storage, names)

    other = FakeEngine(info(version="2"))
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(Storage, "remove", die_after_the_manifest)
        await run(other, source, output, part_rows=200, overwrite=True)
    assert Ledger(Storage(str(output))).is_clearing()
    await run(other, source, output, part_rows=200)
    assert len(list(output.glob("part-*"))) == 2
    assert len(outputs(output)) == 300


@pytest.mark.parametrize(
    ("name", "number", "fragment"),
    [
        ("in_flight", 1025, "1025 requests in flight: expected 0 to 1024"),
        ("in_flight", -1, "-1 requests in flight"),
        ("part_rows", 2, "300 rows in parts of 2 are more than 100 parts"),
        ("part_rows", 1 << 50, "rows per part"),
    ],
)
async def test_numbers_without_measure_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, fragment: str
) -> None:
    monkeypatch.setattr("penstock.jobs.planning.MOST_PARTS", 100)
    write_rows(tmp_path / "in.parquet", 300)
    with pytest.raises(PlanError, match=fragment):
        await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", **{name: number})


async def test_too_many_parts_of_an_input_of_unknown_length_end_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.jobs.parts.MOST_PARTS", 100)
    (tmp_path / "in.jsonl").write_text('{"X": [1, 0, 0, 0]}\n' * 300)
    with pytest.raises(JobError, match="parts of 2 rows are more than 100 parts"):
        await run(FakeEngine(), tmp_path / "in.jsonl", tmp_path / "out", part_rows=2)


async def test_overwrite_replaces_other_jobs_and_goes_on_with_the_same(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 300)
    options: dict[str, Any] = {"part_rows": 100, "overwrite": True, "in_flight": 1}

    def fail_late(inputs: Sequence[TensorRows]) -> None:
        if (inputs[0].values[:, 0] >= 380).any():
            raise engine_error(5, "no such model")

    with pytest.raises(JobError, match="no such model"):
        await run(FakeEngine(None, fail_late), tmp_path / "in.parquet", tmp_path / "out", **options)
    engine = FakeEngine()
    result = await run(engine, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert (result.state, result.resumed_rows > 0) == ("done", True)
    again = await run(engine, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert again.state == "already done"


async def test_outputs_of_a_job_are_read_without_its_rejects(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 100)
    out = tmp_path / "out"
    await run(FakeEngine(), tmp_path / "in.parquet", out, keep=("X",))
    (out / "rejects").mkdir()
    write_rows(out / "rejects" / "part-00000.parquet", 3)
    result = await run(FakeEngine(), out, tmp_path / "again")
    assert result.rows_in == 100
    result = await run(FakeEngine(), out / "rejects", tmp_path / "rejected")
    assert result.rows_in == 3


async def test_lock_that_cannot_be_made_is_temporary(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 100)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TemporaryError, match=r"cannot lock .*/out/\.lock"):
        await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()


async def test_what_pyarrow_cannot_write_ends_the_job_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arrays: Any, kind: Any) -> Any:
        raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")

    monkeypatch.setattr("penstock.jobs.parts._column", fail)
    write_rows(tmp_path / "in.parquet", 100)
    with pytest.raises(JobError, match="cannot write part-00000.parquet: array cannot contain"):
        await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out")


@pytest.mark.parametrize("cut", [20, 300, -30])
async def test_truncated_archive_of_arrays_is_told(tmp_path: Path, cut: int) -> None:
    np.savez_compressed(tmp_path / "in.npz", X=np.random.default_rng(1).random((99, 4), np.float32))
    content = (tmp_path / "in.npz").read_bytes()
    (tmp_path / "in.npz").write_bytes(content[:cut])
    with pytest.raises(PlanError, match="cannot read .*in.npz as npz"):
        await run(FakeEngine(), tmp_path / "in.npz", tmp_path / "out")


async def test_damaged_archive_of_arrays_is_told(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "in.npz", X=np.random.default_rng(1).random((99, 4), np.float32))
    content = bytearray((tmp_path / "in.npz").read_bytes())
    content[80:120] = bytes(40)
    (tmp_path / "in.npz").write_bytes(content)
    with pytest.raises(PlanError, match="cannot read .*in.npz as npz"):
        await run(FakeEngine(), tmp_path / "in.npz", tmp_path / "out")
