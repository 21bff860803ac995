"""Rows of files, as Arrow batches in a fixed order.

The rows of an input are numbered from 0, through all its files by name. A format that knows where
its rows lie (Parquet, Feather, npy, npz, images) skips what nobody wants; text is read through.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from penstock.jobs.convert import Reject
from penstock.jobs.failures import JobError, PlanError
from penstock.jobs.plan import Column
from penstock.jobs.storage import FoundFile, find_files, reason_of, redacted

_UNREADABLE = (
    OSError,
    pa.ArrowException,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What readers of damaged files raise."""

Skip = Callable[[int, int], bool]
"""Whether nobody wants the rows from start to stop."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some rows of the input, one after another.

    Attributes:
        first: number of the first row.
        count: how many rows there are, those without a place in `batch` included.
        batch: a RecordBatch of the columns that are wanted.
        rows: numbers of the batch's rows, where `unreadable` are missing among them; None = all.
        unreadable: rows that could not be read.
    """

    first: int
    batch: Any
    count: int
    rows: Any = None
    unreadable: tuple[Reject, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read.

    Attributes:
        types: Arrow types by column, for formats whose values have none of their own.
        block_rows: rows per batch, about.
        image_rows: how images become rows; None = there are none.
        sole_input: what the array in an .npy file is called.
    """

    types: Mapping[str, Any] = field(default_factory=dict)
    block_rows: int = 8192
    image_rows: Any = None
    sole_input: str = ""


class Reader(Protocol):
    """Reads one file of a format. Blocking."""

    columns: tuple[Column, ...]
    rows: int | None
    """How many there are; None = not known before `blocks` has ended."""

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """The rows, numbered from 0, without those that are skipped whole."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a file before it is read; the file itself is closed meanwhile."""

    columns: tuple[Column, ...]
    rows: int | None


MakeReader = Callable[[Any, FoundFile, ReadOptions], Reader]


class Source:
    """An input: files of one format.

    Threading: thread-compatible; one thread reads.
    Blocking: everything.
    """

    def __init__(
        self,
        uri: str,
        format_name: str,
        opened: tuple[Any, Sequence[FoundFile]],
        make: MakeReader,
        options: ReadOptions,
    ) -> None:
        """Opens every file as far as its columns.

        Raises:
            PlanError: files that cannot be read, or whose columns differ; a line each.
        """
        self.uri = redacted(uri)
        self.format = format_name
        self._filesystem, self.files = opened
        self._make = make
        self._options = options
        self._known: list[_Known] = []
        faults: list[str] = []
        for file in self.files:
            try:
                reader = self._open(file)
                self._known.append(_Known(reader.columns, reader.rows))
            except (PlanError, JobError) as error:
                faults += error.lines
        if faults:
            raise PlanError(*faults)
        self.columns = self._merged_columns()

    @property
    def rows(self) -> int | None:
        """How many there are; None = not known before they are read."""
        return _sum([known.rows for known in self._known])

    def digest(self) -> str:
        """SHA-256 of the listing: names, sizes and times of the last write."""
        listing = [[file.path, file.size_bytes, file.changed_ns] for file in self.files]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def blocks(self, names: Sequence[str], skip: Skip, block_rows: int) -> Iterator[Block]:
        """All rows in order, but for those that are skipped.

        Args:
            names: columns to read.
            skip: what nobody wants; may be read nevertheless.
            block_rows: rows per block, about.

        Raises:
            JobError: a file cannot be read on.
        """
        options = ReadOptions(
            self._options.types,
            block_rows,
            self._options.image_rows,
            self._options.sole_input,
        )
        first = 0
        for file, known in zip(self.files, self._known, strict=True):
            if known.rows is not None and skip(first, first + known.rows):
                first += known.rows
                continue
            try:
                reader = self._make(self._filesystem, file, options)
                yield from _numbered(reader, names, skip, first)
            except _UNREADABLE as error:
                raise JobError(f"cannot read {file.path}: {reason_of(error)}") from None
            first += reader.rows or 0

    def _open(self, file: FoundFile) -> Reader:
        try:
            return self._make(self._filesystem, file, self._options)
        except _UNREADABLE as error:
            raise PlanError(
                f"cannot read {file.path} as {self.format}: {reason_of(error)}"
            ) from None

    def _merged_columns(self) -> tuple[Column, ...]:
        """The columns of all files; nulls add up."""
        first = self._known[0].columns
        wanted = {column.name: column.type for column in first}
        faults = []
        for file, known in zip(self.files[1:], self._known[1:], strict=True):
            got = {column.name: column.type for column in known.columns}
            if got != wanted:
                faults.append(
                    f"{file.path} has other columns than {self.files[0].path}: "
                    f"{_difference(wanted, got)}"
                )
        if faults:
            raise PlanError(*faults)
        return tuple(
            Column(column.name, column.type, self._nulls(at)) for at, column in enumerate(first)
        )

    def _nulls(self, at: int) -> int | None:
        name = self._known[0].columns[at].name
        counts = [
            column.nulls for known in self._known for column in known.columns if column.name == name
        ]
        return _sum(counts)


def _numbered(reader: Reader, names: Sequence[str], skip: Skip, first: int) -> Iterator[Block]:
    """A file's blocks as those of the input that has its first row there."""
    for block in reader.blocks(names, lambda start, stop: skip(first + start, first + stop)):
        yield moved(block, first)


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def moved(block: Block, by: int) -> Block:
    """The block with its rows numbered from elsewhere."""
    if by == 0:
        return block
    rows = None if block.rows is None else block.rows + by
    unreadable = tuple(Reject(each.row + by, each.reason) for each in block.unreadable)
    return Block(block.first + by, block.batch, block.count, rows, unreadable)


def _difference(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> str:
    facts = [f"no '{name}'" for name in wanted if name not in got]
    facts += [f"also '{name}'" for name in got if name not in wanted]
    facts += [
        f"'{name}' is {got[name]}, expected {wanted[name]}"
        for name in wanted
        if name in got and got[name] != wanted[name]
    ]
    return ", ".join(facts[:5])


def open_source(uri: str, format_name: str, options: ReadOptions) -> Source:
    """The input at a URI.

    Args:
        uri: a file, a directory or a pattern.
        format_name: its format; "" = as the suffixes say.
        options: how to read.

    Raises:
        PlanError: there is nothing, of several formats, or it cannot be read.
    """
    from penstock.jobs.formats import READERS, format_of

    filesystem, files = find_files(uri)
    if not format_name:
        by_format = {format_of(file.path): file for file in reversed(files)}
        known = {name: file for name, file in by_format.items() if name}
        files = [file for file in files if format_of(file.path)]
        if not known:
            raise PlanError(
                f"no format is known for {by_format[''].path}: say --input-format, one of "
                f"{', '.join(READERS)}"
            )
        if len(known) > 1:
            raise PlanError(
                f"{redacted(uri)} holds files of several formats: {', '.join(sorted(known))}"
            )
        (format_name,) = known
    if format_name not in READERS:
        raise PlanError(f"no input format '{format_name}', only {', '.join(READERS)}")
    return Source(uri, format_name, (filesystem, files), READERS[format_name], options)
