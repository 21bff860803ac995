"""The input cut into pieces: blocks that lie in one part each, tensors made of them. Read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.jobs.convert import Reject, Rows, Run, convert
from penstock.jobs.plan import Plan
from penstock.jobs.source import Block

_PIECE_BYTES = 16 << 20
"""More than that is cut: how long rows of text and of free shapes are, no plan knows."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of one part, ready to be sent.

    Attributes:
        part: number of the part.
        first: number of the first row.
        count: rows, those included that are not in the batch.
        rows: numbers of the batch's rows.
        batch: the columns that were read.
        runs: rows that can be sent, by position in the batch.
        rejects: rows that cannot, by position in the batch.
        unreadable: rows that could not be read, by number; they are not.
    """

    part: int
    first: int
    count: int
    rows: Rows
    batch: Any
    runs: tuple[Run, ...]
    rejects: tuple[Reject, ...]
    unreadable: tuple[Reject, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """Which rows are wanted, and how they are grouped.

    Attributes:
        part_rows: rows per part.
        is_wanted: whether a part, by number, is still to be done here.
        limit: rows of the input that count; None = all.
        least_rows: smaller blocks of a part are put together to as many.
        stopped: nothing is wanted any more; set from any thread.
    """

    part_rows: int
    is_wanted: Callable[[int], bool]
    limit: int | None = None
    least_rows: int = 1
    stopped: Event = field(default_factory=Event)

    def skips(self, start: int, stop: int) -> bool:
        """Whether nobody wants any of the rows."""
        if self.stopped.is_set():
            return True
        stop = stop if self.limit is None else min(stop, self.limit)
        parts = range(start // self.part_rows, -(-stop // self.part_rows)) if stop > start else ()
        return not any(self.is_wanted(part) for part in parts)


def pieces(blocks: Iterable[Block], plan: Plan, cut: Cut) -> Iterator[Piece]:
    """The wanted rows in order. Blocking: reads and converts."""
    held: list[Block] = []
    for block in _within_parts(blocks, cut):
        if held and not _belongs(held, block, cut):
            yield _piece(held, plan, cut)
            held = []
        held.append(block)
        if sum(each.count for each in held) >= cut.least_rows:
            yield _piece(held, plan, cut)
            held = []
    if held:
        yield _piece(held, plan, cut)


def _belongs(held: list[Block], block: Block, cut: Cut) -> bool:
    last = held[-1]
    is_next = last.first + last.count == block.first
    return is_next and block.first // cut.part_rows == last.first // cut.part_rows


def _within_parts(blocks: Iterable[Block], cut: Cut) -> Iterator[Block]:
    """The blocks without what nobody wants, none of them in two parts."""
    for block in blocks:
        if cut.stopped.is_set():
            return
        start, stop = block.first, block.first + block.count
        if cut.limit is not None:
            if start >= cut.limit:
                return
            stop = min(stop, cut.limit)
        while start < stop:
            part = start // cut.part_rows
            end = min(stop, (part + 1) * cut.part_rows)
            if cut.is_wanted(part):
                yield from _of_some_bytes(_slice(block, start, end), cut.least_rows)
            start = end


def _of_some_bytes(block: Block, rows: int) -> Iterator[Block]:
    """The block, cut into such of several times so many rows if it is large."""
    share = -(-block.batch.nbytes // _PIECE_BYTES)
    if share <= 1:
        yield block
        return
    step = max(1, block.count // share // rows) * rows
    stop = block.first + block.count
    for start in range(block.first, stop, step):
        yield _slice(block, start, min(start + step, stop))


def _slice(block: Block, start: int, stop: int) -> Block:
    if start == block.first and stop == block.first + block.count:
        return block
    if block.rows is None:
        batch = block.batch.slice(start - block.first, stop - start)
        return Block(start, batch, stop - start)
    low, high = np.searchsorted(block.rows, [start, stop])
    unreadable = tuple(each for each in block.unreadable if start <= each.row < stop)
    batch = block.batch.slice(low, high - low)
    return Block(start, batch, stop - start, block.rows[low:high], unreadable)


def _piece(blocks: list[Block], plan: Plan, cut: Cut) -> Piece:
    first, count = blocks[0].first, sum(block.count for block in blocks)
    rows = np.concatenate([_rows(block) for block in blocks])
    batch = _joined([block.batch for block in blocks])
    runs, rejects = convert(batch, plan)
    return Piece(
        first // cut.part_rows,
        first,
        count,
        rows,
        batch,
        tuple(runs),
        tuple(rejects),
        tuple(each for block in blocks for each in block.unreadable),
    )


def _rows(block: Block) -> Rows:
    if block.rows is None:
        return np.arange(block.first, block.first + block.count)
    found: Rows = block.rows
    return found


def _joined(batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches(batches).combine_chunks()
    joined = table.to_batches()
    return joined[0] if joined else batches[0]
