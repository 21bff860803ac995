"""JSON Lines: one object per line.

Lines are given to pyarrow's parser a block at a time, with the types that the model wants. Where a
block does not parse, its halves are tried, down to the lines that are at fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.jobs.convert import Reject
from penstock.jobs.plan import Column
from penstock.jobs.source import Block, ReadOptions, Skip
from penstock.jobs.storage import FoundFile, reason_of

_READ_BYTES = 1 << 22
_LINE_BYTES = 1 << 30
"""A line that is longer is no line."""


class JsonLinesReader:
    """The objects of a file, read through."""

    def __init__(self, filesystem: Any, file: FoundFile, options: ReadOptions) -> None:
        self._filesystem = filesystem
        self._path = file.path
        self._block_rows = options.block_rows
        self._types = options.types
        self.rows: int | None = None
        self.columns = self._look()

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """All rows; a line that cannot be read is told as unreadable."""
        kinds = {column.name: column.type for column in self.columns}
        schema = pa.schema([pa.field(name, kinds[name]) for name in names])
        first = 0
        for lines in self._lines():
            for start in range(0, len(lines), self._block_rows):
                piece = lines[start : start + self._block_rows]
                if not skip(first, first + len(piece)):
                    yield _block(piece, first, schema)
                first += len(piece)
        self.rows = first

    def _lines(self) -> Iterator[list[bytes]]:
        """Lines with something in them, a few megabytes at a time."""
        rest = b""
        with self._filesystem.open_input_stream(self._path, compression="detect") as stream:
            while data := stream.read(_READ_BYTES):
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > _LINE_BYTES:
                    raise ValueError(f"a line is longer than {_LINE_BYTES} bytes")
                yield [line for line in whole if line.strip()]
        if rest.strip():
            yield [rest]

    def _look(self) -> tuple[Column, ...]:
        """The columns of the first lines: wanted types where given, else what pyarrow makes."""
        lines = next((some for some in self._lines() if some), [])
        if not lines:
            return tuple(Column(name, kind) for name, kind in self._types.items())
        found = _first_that_parses(lines[: self._block_rows])
        return tuple(
            Column(field.name, self._types.get(field.name, _carried(field.type))) for field in found
        )


def _carried(kind: Any) -> Any:
    return pa.string() if pa.types.is_null(kind) else kind


def _first_that_parses(lines: list[bytes]) -> Any:
    """The schema of the lines, or of as many of them as can be read."""
    try:
        return _parse(lines, None).schema
    except pa.ArrowInvalid as error:
        for line in lines:
            try:
                return _parse([line], None).schema
            except pa.ArrowInvalid:
                continue
        raise ValueError(f"no line is a JSON object: {reason_of(error)}") from None


def _parse(lines: Sequence[bytes], schema: Any) -> Any:
    from pyarrow import json

    # One block for all: else columns that only later lines have would be another type.
    data = b"\n".join(lines)
    options = json.ParseOptions(
        explicit_schema=schema,
        unexpected_field_behavior="infer" if schema is None else "ignore",
    )
    reading = json.ReadOptions(use_threads=False, block_size=len(data) + 2)
    return json.read_json(pa.BufferReader(data), read_options=reading, parse_options=options)


def _block(lines: list[bytes], first: int, schema: Any) -> Block:
    unreadable: list[Reject] = []
    pieces = list(_pieces(lines, first, schema, unreadable))
    tables = [table for _, table in pieces]
    batch = _as_batch(pa.concat_tables(tables) if tables else schema.empty_table())
    rows = np.concatenate([rows for rows, _ in pieces]) if unreadable and pieces else None
    if unreadable and not pieces:
        rows = np.empty(0, np.int64)
    return Block(first, batch, len(lines), rows, tuple(unreadable))


def _pieces(
    lines: list[bytes], first: int, schema: Any, unreadable: list[Reject]
) -> Iterator[tuple[Any, Any]]:
    try:
        table = _parse(lines, schema)
    except pa.ArrowInvalid as error:
        if len(lines) == 1:
            unreadable.append(Reject(first, f"the line cannot be read: {reason_of(error)}"))
            return
        half = len(lines) // 2
        yield from _pieces(lines[:half], first, schema, unreadable)
        yield from _pieces(lines[half:], first + half, schema, unreadable)
        return
    if table.num_rows != len(lines):  # two objects on a line, or one over several
        if len(lines) == 1:
            unreadable.append(Reject(first, "the line is not one JSON object"))
            return
        half = len(lines) // 2
        yield from _pieces(lines[:half], first, schema, unreadable)
        yield from _pieces(lines[half:], first + half, schema, unreadable)
        return
    yield np.arange(first, first + len(lines)), table.select(schema.names)


def _as_batch(table: Any) -> Any:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
