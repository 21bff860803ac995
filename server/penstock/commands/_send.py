"""Splits rows into requests, keeps several in flight, and puts the answers together again."""

from __future__ import annotations

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any

from penstock.commands._failure import CommandError

if TYPE_CHECKING:
    import numpy.typing as npt

    from penstock_client import InferResult

    Array = npt.NDArray[Any]
    Inputs = dict[str, Array]
    Send = Callable[[Inputs], Awaitable[InferResult]]


def split(inputs: Mapping[str, Array], batch_size: int) -> list[Inputs]:
    """The requests.

    Args:
        inputs: arrays of equally many rows.
        batch_size: rows per request at most; 0 = the model does not batch, all is one request.
    """
    rows = len(next(iter(inputs.values()))) if inputs and batch_size else 0
    if rows == 0:
        return [dict(inputs)]
    return [
        {name: array[start : start + batch_size] for name, array in inputs.items()}
        for start in range(0, rows, batch_size)
    ]


async def send_all(
    send: Send,
    requests: Sequence[Inputs],
    in_flight: int,
    on_answer: Callable[[], None] = lambda: None,
) -> list[InferResult]:
    """Sends every request, at most `in_flight` at a time; the first failure ends it all.

    Returns:
        The answers in the order of the requests.
    """
    answers: list[InferResult | None] = [None] * len(requests)
    queue: Iterator[tuple[int, Inputs]] = iter(enumerate(requests))

    async def work() -> None:
        for position, inputs in queue:
            answers[position] = await send(inputs)
            on_answer()

    await gather_or_cancel(work() for _ in range(min(in_flight, len(requests))))
    return [answer for answer in answers if answer is not None]


async def gather_or_cancel(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all at once; the first failure is raised as it is, after the others have ended."""
    workers = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def joined_outputs(answers: Sequence[InferResult]) -> dict[str, Array]:
    """Outputs by name, rows in the order they were sent.

    Raises:
        CommandError: rows of different requests do not go together, as outputs of free shape may.
    """
    import numpy as np

    if len(answers) == 1:
        return dict(answers[0])
    outputs = {}
    for name in answers[0]:
        try:
            outputs[name] = np.concatenate([answer[name] for answer in answers])
        except ValueError:
            shapes = sorted({str(list(answer[name].shape[1:])) for answer in answers})
            raise CommandError(
                f"rows of output '{name}' of model '{answers[0].model_name}' differ in shape: "
                f"{', '.join(shapes)}; send fewer rows"
            ) from None
    return outputs
