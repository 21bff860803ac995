"""What follows from a failed request: tried again, halved, or the end of the job."""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.fake_batch import BAD, FakeEngine, info, outputs, rejects, run, write_rows

from penstock.jobs.failures import EngineError, JobError, StoppedError, TemporaryError, engine_error
from penstock.jobs.model import TensorRows

UNAVAILABLE, INVALID, NOT_FOUND, DEADLINE, EXHAUSTED = 14, 3, 5, 4, 8


def write_with_bad_rows(path: Path, rows: int, bad: Sequence[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = np.zeros((rows, 4), np.float32)
    values[:, 0] = np.arange(rows) + 100
    values[list(bad), 0] = BAD
    table = pa.table({"id": range(rows), "X": values.tolist()})
    pq.write_table(table.set_column(1, "X", table["X"].cast(pa.list_(pa.float32()))), path)


@pytest.mark.parametrize("bad", [[0], [7], [3, 4], [0, 1, 2, 3, 4, 5, 6, 7], [20], []])
async def test_only_the_rows_at_fault_are_rejected(tmp_path: Path, bad: list[int]) -> None:
    write_with_bad_rows(tmp_path / "in.parquet", 21, bad)
    result = await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", keep=("id",))
    good = [row for row in range(21) if row not in bad]
    table = outputs(tmp_path / "out")
    assert table["id"].to_pylist() == good
    assert table["Y"].to_pylist() == [2 * (row + 100) for row in good]
    assert (result.rows_in, result.rows_out, result.rows_rejected) == (21, len(good), len(bad))
    told = rejects(tmp_path / "out")
    assert [row["row"] for row in told] == bad
    assert all(row["reason"] == "INVALID_ARGUMENT: a row begins with 13" for row in told)
    assert all(row["input"]["X"][0] == BAD for row in told)


async def test_key_is_named_with_rejects_and_carried(tmp_path: Path) -> None:
    write_with_bad_rows(tmp_path / "in.parquet", 9, [5])
    await run(FakeEngine(), tmp_path / "in.parquet", tmp_path / "out", key="id")
    assert [row["key"] for row in rejects(tmp_path / "out")] == [5]
    assert outputs(tmp_path / "out").column_names == ["id", "Y"]


async def test_more_rejects_than_allowed_stop_the_job_and_a_higher_limit_goes_on(
    tmp_path: Path,
) -> None:
    write_with_bad_rows(tmp_path / "in.parquet", 64, [1, 20, 40])
    options: dict[str, Any] = {"part_rows": 16}
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    with pytest.raises(StoppedError, match="2 rows were rejected, more than --max-rejects 1"):
        await run(FakeEngine(), source, output, max_rejects=1, **options)
    assert not (output / "manifest.json").exists()
    engine = FakeEngine()
    result = await run(engine, source, output, max_rejects=3, **options)
    assert (result.rows_out, result.rows_rejected) == (61, 3)
    assert sum(engine.rows) < 64 + 16


async def test_passing_failures_are_tried_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 40)
    failures = itertools.chain([UNAVAILABLE, DEADLINE, UNAVAILABLE], itertools.repeat(0))

    def behaviour(inputs: Sequence[TensorRows]) -> None:
        code = next(failures)
        if code:
            raise engine_error(code, "not now")

    result = await run(FakeEngine(behaviour=behaviour), tmp_path / "in.parquet", tmp_path / "out")
    assert (result.rows_out, result.rows_rejected) == (40, 0)


async def test_no_answer_for_too_long_is_temporary(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 40)

    def behaviour(inputs: Sequence[TensorRows]) -> None:
        raise engine_error(UNAVAILABLE, "the server is away")

    with pytest.raises(TemporaryError, match=r"model 'm': no answer for 0.05 s: UNAVAILABLE"):
        await run(
            FakeEngine(behaviour=behaviour),
            tmp_path / "in.parquet",
            tmp_path / "out",
            retry_s=0.05,
        )
    assert not list((tmp_path / "out").glob("part-*"))
    assert not list((tmp_path / "out").glob(".part-*"))


class LateEngine(FakeEngine):
    """Waits longer than a request is tried before its first one fails."""

    async def infer(self, model: Any, inputs: Any) -> Any:
        if not self.rows:
            self.rows.append(0)
            loop = asyncio.get_running_loop()
            is_late = loop.create_future()
            loop.call_later(0.02, is_late.set_result, None)
            await is_late
            raise engine_error(UNAVAILABLE, "the server is shutting down")
        return await super().infer(model, inputs)


async def test_time_before_the_first_failure_is_no_outage(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 8)
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    result = await run(LateEngine(), source, output, retry_s=0.01, in_flight=1)
    assert result.rows_out == 8


async def test_time_that_a_request_waited_for_its_turn_is_no_outage(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 8)
    failures = itertools.chain([UNAVAILABLE] * 4, itertools.repeat(0))

    def behaviour(inputs: Sequence[TensorRows]) -> None:
        if code := next(failures):
            raise engine_error(code, "model 'm' version 1 was unloaded", waited_s=3600.0)

    options: dict[str, Any] = {"retry_s": 0.02, "in_flight": 1}
    engine = FakeEngine(behaviour=behaviour)
    result = await run(engine, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert result.rows_out == 8


@pytest.mark.parametrize("code", [DEADLINE, UNAVAILABLE])
@pytest.mark.parametrize("in_flight", [1, 8])
async def test_row_that_always_takes_too_long_or_kills_its_worker_is_rejected(
    tmp_path: Path, code: int, in_flight: int
) -> None:
    write_rows(tmp_path / "in.parquet", 40)

    def behaviour(inputs: Sequence[TensorRows]) -> None:
        if (inputs[0].values[:, 0] == 137).any():
            raise engine_error(code, "too much")

    result = await run(
        FakeEngine(behaviour=behaviour),
        tmp_path / "in.parquet",
        tmp_path / "out",
        retry_s=0.01,
        in_flight=in_flight,
    )
    assert (result.rows_out, [row["row"] for row in rejects(tmp_path / "out")]) == (39, [37])


@pytest.mark.parametrize("code", [DEADLINE, UNAVAILABLE])
async def test_outage_rejects_no_row(tmp_path: Path, code: int) -> None:
    """Each request fails once it is past its time, while others are answered again."""
    write_rows(tmp_path / "in.parquet", 40)
    seen: set[float] = set()

    def behaviour(inputs: Sequence[TensorRows]) -> None:
        first = float(inputs[0].values[0, 0])
        if first >= 105 and first not in seen:
            seen.add(first)
            raise engine_error(code, "away")

    options: dict[str, Any] = {"retry_s": 0.0, "in_flight": 5}
    engine = FakeEngine(info(max_batch_size=1), behaviour)
    result = await run(engine, tmp_path / "in.parquet", tmp_path / "out", **options)
    assert len(seen) == 35
    assert (result.rows_out, result.rows_rejected) == (40, 0)


async def test_failure_that_no_request_survives_ends_the_job(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 40)

    def behaviour(inputs: Sequence[TensorRows]) -> None:
        raise engine_error(NOT_FOUND, "no such model")

    with pytest.raises(JobError, match="model 'm': NOT_FOUND: no such model"):
        await run(FakeEngine(behaviour=behaviour), tmp_path / "in.parquet", tmp_path / "out")


class WrongEngine(FakeEngine):
    """Answers as told, whatever is asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(info(max_batch_size=1))
        self.answer = answer

    async def infer(self, model: Any, inputs: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "fragment"),
    [
        ({}, "output 'Y' of model 'm' is missing"),
        ({"Y": np.zeros((2, 1), np.float32)}, "has shape [2, 1], expected [1, 1]"),
        ({"Y": np.zeros((1, 1), np.int64)}, "holds int64, expected FP32"),
    ],
)
async def test_answer_that_is_not_what_the_model_promised_rejects_the_row(
    tmp_path: Path, answer: dict[str, Any], fragment: str
) -> None:
    write_rows(tmp_path / "in.parquet", 1)
    await run(WrongEngine(answer), tmp_path / "in.parquet", tmp_path / "out")
    (row,) = rejects(tmp_path / "out")
    assert fragment in row["reason"]


@pytest.mark.parametrize(
    ("code", "may_retry", "kind"),
    [
        (UNAVAILABLE, False, "RETRY"),
        (EXHAUSTED, True, "RETRY"),
        (EXHAUSTED, False, "ROWS"),
        (INVALID, False, "ROWS"),
        (16, False, "FATAL"),
        (99, False, "ROWS"),
    ],
)
def test_codes_say_what_follows(code: int, may_retry: bool, kind: str) -> None:
    error = engine_error(code, "text", may_retry=may_retry)
    assert isinstance(error, EngineError)
    assert error.kind.name == kind
