"""Output parts: written in order, committed one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.jobs.convert import Reject, Rows
from penstock.jobs.failures import JobError, StoppedError
from penstock.jobs.ledger import MOST_PARTS, Ledger, OutputFile, PartRecord, part_name
from penstock.jobs.pieces import Piece
from penstock.jobs.plan import Plan, output_type
from penstock.jobs.requests import Answer
from penstock.jobs.sink import Sink
from penstock.jobs.storage import Storage, reason_of
from penstock.jobs.writers import (
    SUFFIXES,
    Writer,
    columns_of,
    make_writer,
    rejects_batch,
)

REJECTS = "rejects"


class _OpenFile:
    """A file of a part that is being written."""

    def __init__(self, storage: Storage, name: str, format_name: str, schema: Any) -> None:
        self.name = name
        self._stack = ExitStack()
        self._sink: Sink = self._stack.enter_context(storage.create(name))
        self._writer: Writer = make_writer(format_name, self._sink, schema)
        self._rows = 0

    def write(self, batch: Any) -> None:
        """Appends."""
        if batch.num_rows:
            with _told(self.name):
                self._writer.write(batch)
            self._rows += batch.num_rows

    def finish(self) -> OutputFile:
        """The file is whole and there."""
        with _told(self.name):
            self._writer.close()
        self._stack.close()
        return OutputFile(self.name, self._rows, self._sink.tell(), self._sink.hexdigest())

    def abandon(self, error: BaseException) -> None:
        """The file never was."""
        self._sink.discard()
        with suppress(Exception):  # the writer would do it later, to a file that is closed
            self._writer.close()
        self._stack.__exit__(type(error), error, error.__traceback__)


@dataclass(frozen=True, slots=True)
class PartOptions:
    """How parts are written.

    Attributes:
        format: of outputs.
        part_rows: input rows per part.
        max_rejects: more of them stop the job; None = no limit.
        rejected: rows that were rejected in earlier parts.
    """

    format: str
    part_rows: int
    max_rejects: int | None = None
    rejected: int = 0


class PartWriter:
    """Writes answered pieces, in order, into parts.

    Threading: one thread at a time.
    Blocking: everything.
    Lifecycle: add*, then finish or abandon.
    """

    def __init__(self, storage: Storage, plan: Plan, options: PartOptions) -> None:
        self._storage = storage
        self._ledger = Ledger(storage)
        self._plan = plan
        self._options = options
        self._reject_format = "parquet" if options.format in ("parquet", "feather") else "jsonl"
        self._number = -1
        self._first = self._rows = 0
        self._output: _OpenFile | None = None
        self._rejects: _OpenFile | None = None
        self.rejected = options.rejected
        self.committed: list[PartRecord] = []

    def add(self, piece: Piece, answers: Sequence[Answer]) -> None:
        """Appends the rows of a piece; commits the part before, if this is of another."""
        if piece.part != self._number:
            self.finish()
            self._open(piece.part)
        assert self._output is not None
        with _told(self._output.name):
            outputs = self._outputs(piece, answers)
        self._output.write(outputs)
        self._rows += piece.count
        self._add_rejects(piece, answers)

    def finish(self) -> None:
        """Commits the part that is open, if one is."""
        if self._output is None:
            return
        output, rejects = self._output, self._rejects
        # Closed once each: what fails here has no file, and the part is not committed.
        self._output = self._rejects = None
        try:
            rejected = rejects.finish() if rejects else None
            rejects = None
            record = PartRecord(self._number, self._first, self._rows, output.finish(), rejected)
        except BaseException as error:
            if rejects is not None:
                rejects.abandon(error)
            output.abandon(error)
            raise
        if rejected is None:  # an earlier attempt may have left some
            self._storage.remove([self._rejects_name()])
        self._ledger.commit(record)
        self.committed.append(record)

    def write_empty(self) -> None:
        """Part 0 without rows: what an input without rows gives."""
        self._open(0)
        self.finish()

    def abandon(self, error: BaseException) -> None:
        """Leaves no trace of the part that is open."""
        for file in (self._output, self._rejects):
            if file is not None:
                file.abandon(error)
        self._output = self._rejects = None

    def _open(self, number: int) -> None:
        if number >= MOST_PARTS:  # of an input that does not say how many rows it has
            raise JobError(
                f"parts of {self._options.part_rows} rows are more than {MOST_PARTS} parts"
            )
        name = part_name(number) + SUFFIXES[self._options.format]
        self._output = _OpenFile(self._storage, name, self._options.format, self._plan.schema)
        self._number = number
        self._first, self._rows = number * self._options.part_rows, 0

    def _rejects_name(self) -> str:
        return f"{REJECTS}/{part_name(self._number)}{SUFFIXES[self._reject_format]}"

    def _outputs(self, piece: Piece, answers: Sequence[Answer]) -> Any:
        """The rows that were answered, as the plan's schema says."""
        segments = [segment for answer in answers for segment in answer.segments]
        positions = _concatenated([rows for rows, _ in segments])
        carried = piece.batch.select(list(self._plan.carried))
        if len(positions) != piece.batch.num_rows:
            carried = carried.take(pa.array(positions))
        columns = list(carried.columns)
        for tensor in self._plan.model.outputs:
            arrays = [outputs[tensor.name] for _, outputs in segments]
            columns.append(_column(arrays, output_type(tensor)))
        return pa.record_batch(columns, schema=self._plan.schema)

    def _add_rejects(self, piece: Piece, answers: Sequence[Answer]) -> None:
        rejects = [*piece.rejects, *(each for answer in answers for each in answer.rejects)]
        if not rejects and not piece.unreadable:
            return
        with _told(self._rejects_name()):
            batch = _reject_rows(piece, rejects, self._plan.key)
        if self._rejects is None:
            self._rejects = _OpenFile(
                self._storage, self._rejects_name(), self._reject_format, batch.schema
            )
        self._rejects.write(batch)
        self.rejected += batch.num_rows
        limit = self._options.max_rejects
        if limit is not None and self.rejected > limit:
            last = batch.column("reason")[-1].as_py()
            raise StoppedError(
                f"{self.rejected} rows were rejected, more than --max-rejects {limit}; "
                f"the last: {last}"
            )


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Makes what pyarrow cannot do with some values an end of the job that says so."""
    try:
        yield
    except pa.ArrowException as error:
        raise JobError(f"cannot write {name}: {reason_of(error)}") from None


def _reject_rows(piece: Piece, rejects: Iterable[Reject], key: str) -> Any:
    """Rejected rows in order; those that could not be read have nulls for the input."""
    listed = [(int(piece.rows[each.row]), each.row, each.reason) for each in rejects]
    listed += [(each.row, -1, each.reason) for each in piece.unreadable]
    listed.sort()
    places = pa.array([None if at < 0 else at for _, at, _ in listed], pa.int64())
    return rejects_batch(
        np.array([row for row, _, _ in listed], np.int64),
        [reason for _, _, reason in listed],
        piece.batch.take(places),
        key,
    )


def _concatenated(rows: list[Rows]) -> Rows:
    return np.concatenate(rows) if rows else np.empty(0, np.int64)


def _column(arrays: list[Any], kind: Any) -> Any:
    """Outputs of requests as one column."""
    if not arrays:
        return pa.array([], kind)
    if len({array.shape[1:] for array in arrays}) == 1:
        return columns_of(np.concatenate(arrays), kind)
    return pa.concat_arrays([columns_of(array, kind) for array in arrays])
