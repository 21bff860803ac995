"""The end of a pipeline: in order, and without holding the event loop up."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from tests.support.fake_batch import FakeEngine, info

from penstock.jobs.model import WireTensor
from penstock.jobs.pieces import Cut, pieces
from penstock.jobs.plan import Column, PlanOptions, make_plan
from penstock.jobs.planning import row_bytes
from penstock.jobs.requests import Sender
from penstock.jobs.runner import Runner
from penstock.jobs.source import Block


class SlowWriter:
    """Gives up only when it is allowed to."""

    rejected = 0

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.is_abandoned = False

    def finish(self) -> None:
        raise AssertionError("the job did not end well")

    def abandon(self, error: BaseException) -> None:
        assert isinstance(error, asyncio.CancelledError)
        self.is_abandoned = self.may_end.wait(60)


async def test_cancelled_job_that_reads_and_gives_up_slowly_does_not_block_the_loop() -> None:
    reads, stopped, writer = asyncio.Event(), threading.Event(), SlowWriter()
    loop = asyncio.get_running_loop()

    def pieces() -> Iterator[Any]:
        loop.call_soon_threadsafe(reads.set)
        assert stopped.wait(60)  # a file with rows that nobody wants
        yield from ()

    runner = Runner(
        Sender(FakeEngine(), info(), 1.0),
        writer,  # type: ignore[arg-type]
        request_rows=8,
        in_flight=2,
        on_stop=stopped.set,
    )
    task = asyncio.ensure_future(runner.run(pieces()))
    await reads.wait()
    for _ in range(3):  # impatient callers change nothing
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    writer.may_end.set()  # reached only by a loop that runs
    with pytest.raises(asyncio.CancelledError):
        await task
    assert writer.is_abandoned


def test_rows_of_many_bytes_make_small_pieces_of_whole_requests() -> None:
    texts = WireTensor("X", "BYTES", (-1, 1))
    plan = make_plan(info([texts]), [Column("X", pa.string())], PlanOptions())
    batch = pa.record_batch({"X": ["a" * (1 << 20)] * 100})
    found = list(pieces([Block(0, batch, 100)], plan, Cut(1000, lambda part: True, least_rows=8)))
    assert [piece.count for piece in found] == [8] * 12 + [4]
    assert [piece.first for piece in found] == list(range(0, 100, 8))


def test_outputs_count_for_the_size_of_a_row() -> None:
    outputs = [WireTensor("Y", "FP32", (-1, 1000))]
    kind = pa.list_(pa.float32(), 4)
    plan = make_plan(info(outputs=outputs), [Column("X", kind)], PlanOptions())
    assert row_bytes(plan) == 16 + 4000
