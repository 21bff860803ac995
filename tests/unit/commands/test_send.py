"""Splitting, sending and joining of rows."""

import asyncio
from typing import Any

import numpy as np
import pytest

from penstock.commands._failure import CommandError
from penstock.commands._send import joined_outputs, send_all, split
from penstock_client import InferResult


def rows(count: int) -> dict[str, Any]:
    return {"X": np.arange(count).reshape(count, 1)}


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (4, 4, [4]), (3, 64, [3]), (0, 4, [0]), (5, 0, [5])],
)
def test_split_sizes(count: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(request["X"]) for request in split(rows(count), batch_size)] == sizes


async def test_answers_keep_the_order_of_requests_that_overtake_each_other() -> None:
    first_may_end = asyncio.Event()

    async def send(inputs: dict[str, Any]) -> InferResult:
        if inputs["X"][0, 0] == 0:
            await first_may_end.wait()
        elif inputs["X"][0, 0] == 9:
            first_may_end.set()
        return InferResult({"Y": inputs["X"] * 2})

    answers = await send_all(send, split(rows(10), 3), in_flight=2)
    assert joined_outputs(answers)["Y"].ravel().tolist() == [2 * n for n in range(10)]


async def test_no_more_than_in_flight_at_a_time() -> None:
    under_way, most, told = 0, 0, 0

    async def send(inputs: dict[str, Any]) -> InferResult:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return InferResult({})

    def tell() -> None:
        nonlocal told
        told += 1

    await send_all(send, split(rows(20), 1), in_flight=3, on_answer=tell)
    assert (most, told) == (3, 20)


async def test_first_failure_ends_what_is_under_way() -> None:
    cancelled = 0

    async def send(inputs: dict[str, Any]) -> InferResult:
        nonlocal cancelled
        if inputs["X"][0, 0] == 1:
            raise CommandError("no")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        raise AssertionError

    with pytest.raises(CommandError, match="^no$"):
        await send_all(send, split(rows(9), 1), in_flight=3)
    assert cancelled == 2


def test_outputs_of_different_row_shapes_do_not_join() -> None:
    answers = [InferResult({"Y": np.zeros((1, n))}, model_name="m") for n in (2, 3)]
    with pytest.raises(
        CommandError, match=r"output 'Y' of model 'm' differ in shape: \[2\], \[3\]"
    ):
        joined_outputs(answers)
