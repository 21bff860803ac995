"""Readers of files with columns, by format. The reading is pyarrow's and numpy's."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.jobs.images import ImageReader
from penstock.jobs.jsonlines import JsonLinesReader
from penstock.jobs.plan import Column
from penstock.jobs.source import Block, MakeReader, ReadOptions, Skip
from penstock.jobs.storage import FoundFile

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "feather": (".feather", ".arrow", ".ipc"),
    "csv": (".csv", ".csv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "npy": (".npy",),
    "npz": (".npz",),
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
}
TEXT_FORMATS = ("csv", "jsonl", "images")
"""Where numbers have no type of their own."""


def format_of(path: str) -> str:
    """The format by the suffix; "" for an unknown one."""
    name = posixpath.basename(path).lower()
    hits = (form for form, ends in SUFFIXES.items() if name.endswith(ends))
    return next(hits, "")


class ParquetReader:
    """Row groups of a Parquet file."""

    def __init__(self, filesystem: Any, file: FoundFile, options: ReadOptions) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(filesystem.open_input_file(file.path))
        self._block_rows = options.block_rows
        self._metadata = self._file.metadata
        self.rows: int | None = self._metadata.num_rows
        self.columns = tuple(
            Column(field.name, field.type, self._nulls(field.name))
            for field in self._file.schema_arrow
        )

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """Row groups that somebody wants, in blocks."""
        first = 0
        for group in range(self._metadata.num_row_groups):
            count = self._metadata.row_group(group).num_rows
            if not skip(first, first + count):
                at = first
                for batch in self._file.iter_batches(
                    self._block_rows, [group], list(names), use_threads=False
                ):
                    yield Block(at, _with_rows(batch, names), batch.num_rows)
                    at += batch.num_rows
            first += count

    def _nulls(self, name: str) -> int | None:
        """Nulls of a column that holds plain values, as the statistics say."""
        total = 0
        for group in range(self._metadata.num_row_groups):
            chunks = self._metadata.row_group(group)
            found = [
                chunks.column(at)
                for at in range(chunks.num_columns)
                if chunks.column(at).path_in_schema == name
            ]
            statistics = found[0].statistics if found else None
            if statistics is None or not statistics.has_null_count:
                return None
            total += statistics.null_count
        return total


def _with_rows(batch: Any, names: Sequence[str]) -> Any:
    """The batch with its columns in the order of the names."""
    return batch.select(list(names))


class FeatherReader:
    """Record batches of an Arrow file, in the file or the stream format."""

    def __init__(self, filesystem: Any, file: FoundFile, options: ReadOptions) -> None:
        self._block_rows = options.block_rows
        source = filesystem.open_input_file(file.path)
        self._file = pa.ipc.open_file(source)
        counts = [self._file.get_batch(at).num_rows for at in range(self._file.num_record_batches)]
        self._counts = counts
        self.rows: int | None = sum(counts)
        self.columns = tuple(Column(field.name, field.type) for field in self._file.schema)

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """Batches that somebody wants, in blocks."""
        first = 0
        for at, count in enumerate(self._counts):
            if not skip(first, first + count):
                batch = _with_rows(self._file.get_batch(at), names)
                yield from _cut(batch, first, self._block_rows)
            first += count


class CsvReader:
    """A CSV file with a header; every value is read as text."""

    def __init__(self, filesystem: Any, file: FoundFile, options: ReadOptions) -> None:
        self._filesystem = filesystem
        self._path = file.path
        self._block_rows = options.block_rows
        self.rows: int | None = None
        self.columns = tuple(Column(name, pa.string()) for name in self._header())

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """All rows; text has to be read to know where a row begins."""
        from pyarrow import csv

        types = {column.name: pa.string() for column in self.columns}
        convert = csv.ConvertOptions(
            column_types=types, include_columns=list(names), strings_can_be_null=False
        )
        first = 0
        with (
            self._filesystem.open_input_stream(self._path, compression="detect") as stream,
            csv.open_csv(stream, convert_options=convert, parse_options=_parsing()) as reader,
        ):
            for batch in reader:
                yield from _cut(batch, first, self._block_rows)
                first += batch.num_rows
        self.rows = first

    def _header(self) -> list[str]:
        from pyarrow import csv

        with self._filesystem.open_input_stream(self._path, compression="detect") as stream:
            start = stream.read(1 << 20)
        if not start.strip():
            raise ValueError("it has no header")
        cut = start.rfind(b"\n") + 1 or len(start)
        line = pa.BufferReader(start[:cut])
        with csv.open_csv(line, parse_options=_parsing()) as reader:
            names: list[str] = reader.schema.names
        if len(set(names)) < len(names):
            raise ValueError("two columns have the same name")
        return names


def _parsing() -> Any:
    from pyarrow import csv

    return csv.ParseOptions(newlines_in_values=True)


class NumpyReader:
    """Arrays of an .npy or .npz file; the first dimension counts rows."""

    def __init__(self, filesystem: Any, file: FoundFile, options: ReadOptions) -> None:
        self._block_rows = options.block_rows
        self._arrays = _load(filesystem, file.path, options.sole_input)
        lengths = {name: len(array) if array.ndim else -1 for name, array in self._arrays.items()}
        if len(set(lengths.values())) > 1 or -1 in lengths.values():
            facts = ", ".join(f"'{n}' {list(a.shape)}" for n, a in self._arrays.items())
            raise ValueError(f"its arrays have no common number of rows: {facts}")
        self.rows: int | None = next(iter(lengths.values()), 0)
        self.columns = tuple(
            Column(name, arrow_of(array[:0]).type) for name, array in self._arrays.items()
        )

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """Slices of the arrays; nothing is copied."""
        total = self.rows or 0
        for start in range(0, total, self._block_rows):
            stop = min(start + self._block_rows, total)
            if not skip(start, stop):
                columns = [arrow_of(self._arrays[name][start:stop]) for name in names]
                yield Block(start, pa.record_batch(columns, list(names)), stop - start)


def _load(filesystem: Any, path: str, sole_input: str) -> dict[str, Any]:
    is_local = filesystem.type_name == "local"
    if is_local and path.lower().endswith(".npy"):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        with filesystem.open_input_file(path) as stream:
            loaded = np.load(pa.PythonFile(stream) if not is_local else stream, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                return {name: loaded[name] for name in loaded.files}
    if not isinstance(loaded, np.ndarray):
        raise ValueError("it holds an archive of arrays; name it .npz")
    return {sole_input or "array": loaded}


def arrow_of(array: Any) -> Any:
    """An array as an Arrow column: a row of [a, b] is a list of a lists of b values."""
    if 0 in array.shape[1:]:
        raise ValueError(f"rows of no values: shape {list(array.shape)}")
    if array.dtype.kind in "SU":
        kind = pa.binary() if array.dtype.kind == "S" else pa.string()
        values = pa.array(array.reshape(-1).tolist(), kind)
    else:
        native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        values = pa.array(native.reshape(-1))
    for size in reversed(array.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return values


def _cut(batch: Any, first: int, block_rows: int) -> Iterator[Block]:
    for start in range(0, batch.num_rows, block_rows):
        piece = batch.slice(start, block_rows)
        yield Block(first + start, piece, piece.num_rows)


READERS: Mapping[str, MakeReader] = {
    "parquet": ParquetReader,
    "feather": FeatherReader,
    "csv": CsvReader,
    "jsonl": JsonLinesReader,
    "npy": NumpyReader,
    "npz": NumpyReader,
    "images": ImageReader,
}

__all__ = ["READERS", "SUFFIXES", "TEXT_FORMATS", "arrow_of", "format_of"]
