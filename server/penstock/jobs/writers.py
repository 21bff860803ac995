"""Writers of output parts, by format. A part is written batch by batch, in order.

parquet, feather  columns as they are; BYTES is binary
csv               rows of a fixed shape as columns name_0, name_1, ...; BYTES as UTF-8 text
jsonl             nested lists; BYTES as UTF-8 text; NaN and infinities as strings
npy               the only output, without carried columns
npz               an array per column; rows of a fixed shape only, and no nulls
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from penstock.jobs.convert import Rows
from penstock.jobs.failures import JobError, PlanError
from penstock.jobs.plan import is_list, leaf_type
from penstock.jobs.sink import Sink

SUFFIXES: Mapping[str, str] = {
    "parquet": ".parquet",
    "feather": ".feather",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "npy": ".npy",
    "npz": ".npz",
}


class Writer(Protocol):
    """Writes one part to a sink."""

    def write(self, batch: Any) -> None:
        """Appends a RecordBatch of the schema."""

    def close(self) -> None:
        """Writes what comes last; the sink is its owner's."""


def schema_faults(format_name: str, schema: Any) -> list[str]:
    """Why outputs of this schema cannot be written in the format; none if they can."""
    if format_name not in SUFFIXES:
        return [f"no output format '{format_name}', only {', '.join(SUFFIXES)}"]
    if format_name == "npy" and len(schema) != 1:
        return [f"npy holds one array, and there are {len(schema)} columns: use npz"]
    if format_name not in ("csv", "npy", "npz"):
        return []
    return [
        f"column '{field.name}' is {field.type}: {format_name} holds rows of a fixed shape only"
        for field in schema
        if _has_free_list(field.type)
    ]


def make_writer(format_name: str, sink: Sink, schema: Any) -> Writer:
    """A writer of the format; PlanError as `schema_faults` says."""
    faults = schema_faults(format_name, schema)
    if faults:
        raise PlanError(*faults)
    return _WRITERS[format_name](sink, schema)


class _ParquetWriter:
    def __init__(self, sink: Sink, schema: Any) -> None:
        import pyarrow.parquet as pq

        # Floats hardly ever repeat: a dictionary of them takes longer than all else, and more room.
        plain = [f.name for f in schema if not is_list(f.type) and not pt.is_floating(f.type)]
        self._writer = pq.ParquetWriter(sink, schema, use_dictionary=plain or False)

    def write(self, batch: Any) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _FeatherWriter:
    def __init__(self, sink: Sink, schema: Any) -> None:
        self._writer = pa.ipc.new_file(sink, schema)

    def write(self, batch: Any) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _CsvWriter:
    def __init__(self, sink: Sink, schema: Any) -> None:
        from pyarrow import csv

        empty = pa.RecordBatch.from_pylist([], schema=schema)
        self._writer = csv.CSVWriter(sink, _flattened(empty).schema)

    def write(self, batch: Any) -> None:
        self._writer.write_batch(_flattened(batch))

    def close(self) -> None:
        self._writer.close()


class _JsonLinesWriter:
    def __init__(self, sink: Sink, schema: Any) -> None:
        del schema
        self._sink = sink

    def write(self, batch: Any) -> None:
        lines = [json_line(row) for row in batch.to_pylist()]
        self._sink.write("".join(lines).encode())

    def close(self) -> None:
        """Nothing comes last."""


class _NumpyWriter:
    """Keeps the part in memory: an array's header says how many rows follow."""

    def __init__(self, sink: Sink, schema: Any) -> None:
        self._sink = sink
        self._batches = [pa.RecordBatch.from_pylist([], schema=schema)]

    def write(self, batch: Any) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if _has_nulls(column):  # numpy would make NaN of them, and floats of all integers
                raise JobError(
                    f"column '{name}' has nulls, which npy and npz cannot hold: use another "
                    "--output-format"
                )
        self._batches.append(batch)

    def _arrays(self) -> dict[str, Any]:
        table = pa.Table.from_batches(self._batches).combine_chunks()
        return {
            name: _numpy_of(column) for name, column in zip(table.column_names, table, strict=True)
        }


class _NpyWriter(_NumpyWriter):
    def close(self) -> None:
        (array,) = self._arrays().values()
        np.lib.format.write_array(self._sink, array, allow_pickle=False)


class _NpzWriter(_NumpyWriter):
    def close(self) -> None:
        np.savez(self._sink, **self._arrays())


_WRITERS: Mapping[str, Callable[[Sink, Any], Writer]] = {
    "parquet": _ParquetWriter,
    "feather": _FeatherWriter,
    "csv": _CsvWriter,
    "jsonl": _JsonLinesWriter,
    "npy": _NpyWriter,
    "npz": _NpzWriter,
}


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (ValueError, TypeError):
        return json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _has_nulls(column: Any) -> bool:
    while True:
        if column.null_count:
            return True
        if not is_list(column.type):
            return False
        column = column.flatten()


def _has_free_list(kind: Any) -> bool:
    while is_list(kind):
        if not pt.is_fixed_size_list(kind):
            return True
        kind = kind.value_type
    return False


def _flattened(batch: Any) -> Any:
    """The batch with a column per value."""
    columns: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values, size = column, 1
        while pt.is_fixed_size_list(values.type):
            size *= values.type.list_size
            values = values.flatten()
        values = _as_text(values)
        if not is_list(column.type):
            columns[name] = values
            continue
        for at in range(size):
            places = pa.array(np.arange(at, len(values), size, dtype=np.int64))
            columns[f"{name}_{at}"] = values.take(places)
    return pa.record_batch(list(columns.values()), list(columns))


def _as_text(values: Any) -> Any:
    """BYTES as text, what CSV can hold; other values as they are."""
    if pt.is_float16(values.type):
        return values.cast(pa.float32())
    if not (pt.is_binary(values.type) or pt.is_large_binary(values.type)):
        return values
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [
            None if v is None else v.decode("utf-8", "backslashreplace") for v in values.to_pylist()
        ]
        return pa.array(texts, pa.string())


def _numpy_of(column: Any) -> Any:
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = [len(values)]
    while pt.is_fixed_size_list(values.type):
        shape.append(values.type.list_size)
        values = values.flatten()
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind == "O":  # text and bytes, which an array holds at a fixed width
        kind = leaf_type(values.type)
        is_bytes = pt.is_binary(kind) or pt.is_large_binary(kind)
        array = array.astype(bytes if is_bytes else str) if len(array) else array.astype(str)
    return array.reshape(shape)


def columns_of(array: Any, kind: Any) -> Any:
    """An output [rows, ...] as an Arrow column.

    Args:
        array: numbers, or bytes as objects.
        kind: the column's type, whose fixed sizes the shape fits.
    """
    if array.dtype.kind == "O":
        values = pa.array(array.reshape(-1).tolist(), leaf_type(kind))
    else:
        flat = np.ascontiguousarray(array).reshape(-1)
        values = pa.array(flat, leaf_type(kind))
    kinds = []
    while is_list(kind):
        kinds.append(kind)
        kind = kind.value_type
    sizes = array.shape[1 : 1 + len(kinds)]
    counts = np.cumprod([array.shape[0], *sizes])
    for at in reversed(range(len(kinds))):
        if sizes[at] == 0:  # the values tell no number of lists, and pyarrow divides by their size
            values = pa.array([[]] * int(counts[at]), kinds[at])
        elif pt.is_fixed_size_list(kinds[at]):
            values = pa.FixedSizeListArray.from_arrays(values, type=kinds[at])
        else:
            step = sizes[at]
            offsets = np.arange(int(counts[at]) + 1, dtype=np.int32) * np.int32(step)
            values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def rejects_batch(rows: Rows, reasons: list[str], inputs: Any, key: str) -> Any:
    """Rejected rows with what came in: row, key, reason, and the input as a struct."""
    columns = {"row": pa.array(rows, pa.int64())}
    if key:
        columns["key"] = inputs.column(key)
    columns["reason"] = pa.array(reasons, pa.string())
    columns["input"] = pa.StructArray.from_arrays(inputs.columns, fields=list(inputs.schema))
    return pa.record_batch(list(columns.values()), list(columns))
