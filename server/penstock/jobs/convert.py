"""Rows of Arrow columns to tensors, without a loop over rows.

A column that is as the tensor wants it is not copied. What does not fit is found by a look at whole
columns, and raised as `_BadRows`, all runs and columns together; the rows it names are taken out
and the rest is tried again, so that blocks without faults pay nothing for those that have some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from penstock.jobs.model import Array, TensorInfo, TensorRows, numpy_types
from penstock.jobs.plan import Binding, Plan, is_list, is_string

_T = TypeVar("_T")
Rows = npt.NDArray[np.int64]

_EXACT_BITS = {"FP16": 11, "FP32": 24, "FP64": 53}
_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:nan|inf|infinity)$"
_INTEGER = r"^[+-]?\d+$"
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that did not get through.

    Attributes:
        row: its position; in which block, the holder knows.
        reason: one sentence.
    """

    row: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Rows of equal shapes: they may share requests.

    Attributes:
        rows: their positions in the block, ascending.
        inputs: their tensors.
    """

    rows: Rows
    inputs: tuple[TensorRows, ...]


class _BadRows(Exception):
    """Some rows do not fit; `reason` tells of one what is wrong with it."""

    def __init__(self, rows: Rows, reason: Callable[[int], str]) -> None:
        super().__init__()
        self.rows = np.unique(rows)
        self.reason = reason


def convert(batch: Any, plan: Plan) -> tuple[list[Run], list[Reject]]:
    """The tensors of a block.

    Args:
        batch: a RecordBatch with the plan's columns.
        plan: which columns become which tensors.

    Returns:
        Runs of rows that can be sent together, in order, and the rows that cannot be sent.
    """
    rows = np.arange(batch.num_rows)
    rejects: list[Reject] = []
    while True:
        try:
            runs = _runs(batch, rows, plan)
            return runs, sorted(rejects, key=lambda reject: reject.row)
        except _BadRows as bad:
            rejects += [Reject(int(rows[row]), bad.reason(int(row))) for row in bad.rows]
            good = np.delete(np.arange(len(rows)), bad.rows)
            rows, batch = rows[good], batch.take(pa.array(good))


def _runs(batch: Any, rows: Rows, plan: Plan) -> list[Run]:
    free = [each for each in plan.bindings if -1 in each.tensor.shape and len(each.columns) == 1]
    bounds = _bounds(batch, free, plan)
    inputs = _all(
        partial(_inputs, batch.slice(start, stop - start), plan, start) for start, stop in bounds
    )
    return [Run(rows[start:stop], made) for (start, stop), made in zip(bounds, inputs, strict=True)]


def _all(makers: Iterable[Callable[[], _T]]) -> list[_T]:
    """What each of them makes; the bad rows of all at once, each with what was found first."""
    made, reasons = [], dict[int, Callable[[int], str]]()
    for make in makers:
        try:
            made.append(make())
        except _BadRows as bad:
            for row in bad.rows.tolist():
                reasons.setdefault(row, bad.reason)
    if reasons:
        raise _BadRows(np.array(list(reasons), np.int64), lambda row: reasons[row](row))
    return made


def _inputs(batch: Any, plan: Plan, first: int) -> tuple[TensorRows, ...]:
    try:
        return tuple(_input(batch, binding, plan) for binding in plan.bindings)
    except _BadRows as bad:
        reason = bad.reason
        raise _BadRows(bad.rows + first, lambda row: reason(row - first)) from None


def _bounds(batch: Any, free: Sequence[Binding], plan: Plan) -> list[tuple[int, int]]:
    """Where runs of equal shape begin and end; a free dimension takes the length of each row."""
    if batch.num_rows == 0:
        return []
    breaks: set[int] = set()
    for binding in free:
        column = _plain(batch.column(binding.columns[0]))
        shape = binding.tensor.shape
        if -1 in shape[1:]:  # the inner lengths would have to be compared too: a row each
            breaks.update(range(1, batch.num_rows))
        else:
            _check_nulls(column, binding, plan)
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            breaks.update((np.flatnonzero(np.diff(lengths)) + 1).tolist())
    edges = [0, *sorted(breaks), batch.num_rows]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _input(batch: Any, binding: Binding, plan: Plan) -> TensorRows:
    tensor, count = binding.tensor, batch.num_rows
    if len(binding.columns) == 1:
        column = _plain(batch.column(binding.columns[0]))
        values, shape = _flat(column, binding, plan)
        converted = _converted(values, math.prod(shape), binding, 0, plan)
        wire_shape = tuple(
            own if size < 0 else size
            for size, own in zip(tensor.wire_shape, _padded(shape, tensor), strict=True)
        )
    else:
        parts = _all(
            partial(_column, batch.column(name), binding, at, plan)
            for at, name in enumerate(binding.columns)
        )
        converted = _interleaved(parts, count)
        wire_shape = (len(parts),)
    if tensor.datatype != "BYTES":
        converted = converted.reshape(count, *wire_shape)
    return TensorRows(tensor.name, tensor.datatype, wire_shape, converted)


def _padded(shape: tuple[int, ...], tensor: TensorInfo) -> tuple[int, ...]:
    return shape if len(shape) == len(tensor.wire_shape) else tensor.wire_shape


def _interleaved(parts: list[Any], count: int) -> Any:
    """Values of several columns, row by row."""
    if isinstance(parts[0], np.ndarray):
        return np.stack(parts, axis=1)
    order = np.arange(len(parts) * count).reshape(len(parts), count).T.ravel()
    return pa.concat_arrays(parts).take(pa.array(order))


def _plain(column: Any) -> Any:
    """A column without dictionary."""
    return column.dictionary_decode() if pt.is_dictionary(column.type) else column


def _column(column: Any, binding: Binding, at: int, plan: Plan) -> Any:
    """One of the columns that make a tensor."""
    values = _plain(column)
    _check_nulls(values, binding, plan, at)
    return _converted(values, 1, binding, at, plan)


def _flat(column: Any, binding: Binding, plan: Plan) -> tuple[Any, tuple[int, ...]]:
    """All values of a column one after another, and the shape of a row."""
    _check_nulls(column, binding, plan)
    tensor = binding.tensor
    wanted = (math.prod(tensor.shape),) if binding.is_flat else tensor.shape
    if not binding.is_flat and is_list(column.type) and not tensor.shape:
        wanted = tensor.wire_shape
    shape: list[int] = []
    values = column
    for size in wanted:
        per_row = math.prod(shape)
        length = _uniform_length(values, size, per_row, binding, plan)
        if values.null_count:
            nulls = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
            raise _BadRows(nulls // per_row, lambda row: _tell(binding, plan, "a null in the list"))
        values = values.flatten()
        shape.append(length)
    return _plain(values), tensor.wire_shape if binding.is_flat else tuple(shape)


def _uniform_length(lists: Any, size: int, per_row: int, binding: Binding, plan: Plan) -> int:
    if pt.is_fixed_size_list(lists.type):
        return int(lists.type.list_size)
    if len(lists) == 0:
        return max(size, 0)
    lengths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
    expected = size if size >= 0 else int(lengths[0])
    wrong = np.flatnonzero(lengths != expected)
    if len(wrong):
        of_row = dict(zip((wrong // per_row).tolist(), lengths[wrong].tolist(), strict=True))
        raise _BadRows(
            wrong // per_row,
            lambda row: _tell(binding, plan, f"a list of {of_row[row]}, expected {expected}"),
        )
    return expected


def _check_nulls(column: Any, binding: Binding, plan: Plan, at: int = 0) -> None:
    if column.null_count:
        nulls = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        raise _BadRows(nulls, lambda row: _tell(binding, plan, "it is null", at))


def _converted(values: Any, per_row: int, binding: Binding, at: int, plan: Plan) -> Any:
    """Values as the tensor's type: numpy, or large_binary for BYTES."""
    per_row = max(per_row, 1)

    def bad(positions: Array, what: Callable[[int], str]) -> _BadRows:
        first = {int(p) // per_row: int(p) for p in positions[::-1]}
        return _BadRows(
            positions // per_row, lambda row: _tell(binding, plan, what(first[row]), at)
        )

    if values.null_count:
        nulls = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
        raise bad(nulls, lambda _: "a null in the list")
    datatype = binding.tensor.datatype
    if datatype == "BYTES":
        return _as_binary(values)
    if is_string(values.type):
        values = _read_text(values, datatype, bad)
    if datatype == "BOOL":
        return values.to_numpy(zero_copy_only=False)
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind in "iu" and datatype in numpy_types() and datatype[0] != "F":
        return _as_integers(numbers, datatype, bad)
    return _as_floats(numbers, datatype, bad)


def _as_binary(values: Any) -> Any:
    if pt.is_fixed_size_binary(values.type) or pt.is_binary_view(values.type):
        values = values.cast(pa.binary())
    elif pt.is_string_view(values.type):
        values = values.cast(pa.string())
    return values.cast(pa.large_binary())


def _as_integers(numbers: Array, datatype: str, bad: Callable[..., _BadRows]) -> Array:
    target = numpy_types()[datatype]
    if numbers.dtype == target or len(numbers) == 0:
        return numbers.astype(target, copy=False)
    bounds = np.iinfo(target)
    wrong = np.flatnonzero((numbers < int(bounds.min)) | (numbers > int(bounds.max)))
    if len(wrong):
        raise bad(wrong, lambda p: f"{numbers[p]} is out of the range of {datatype}")
    return numbers.astype(target)


def _as_floats(numbers: Array, datatype: str, bad: Callable[..., _BadRows]) -> Array:
    target = np.dtype("<f4") if datatype == "BF16" else numpy_types()[datatype]
    if numbers.dtype.kind in "iu":
        limit = 1 << _EXACT_BITS[datatype]
        wrong = np.flatnonzero((numbers > limit) | (numbers < -limit))
        if len(wrong):
            raise bad(wrong, lambda p: f"{numbers[p]} is not exact in {datatype}")
        return numbers.astype(target)
    with np.errstate(over="ignore"):
        rounded = numbers.astype(target, copy=False)
    if rounded is not numbers:
        wrong = np.flatnonzero(np.isinf(rounded) & np.isfinite(numbers))
        if len(wrong):
            raise bad(wrong, lambda p: f"{numbers[p]} is out of the range of {datatype}")
    return rounded


def _read_text(values: Any, datatype: str, bad: Callable[..., _BadRows]) -> Any:
    """Numbers from strings, as CSV has them."""
    trimmed = pc.utf8_trim_whitespace(values)
    if datatype == "BOOL":
        kind, form, what = pa.bool_(), r"^(?i:true|false|0|1)$", "no boolean"
    elif datatype.startswith(("INT", "UINT")):
        kind, form, what = pa.int64(), _INTEGER, "no integer"
        if datatype == "UINT64":
            kind = pa.uint64()
    else:
        kind = pa.float64() if datatype == "FP64" else pa.float32()
        form, what = _NUMBER, "no number"
    try:
        return trimmed.cast(kind)
    except pa.ArrowInvalid:
        fits = pc.match_substring_regex(trimmed, form).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(~fits)
        if len(wrong) == 0:  # the form is right and the value too large
            wrong = np.array([p for p in range(len(trimmed)) if not _is_castable(trimmed[p], kind)])
        texts = {int(p): _shown(trimmed[int(p)].as_py()) for p in wrong}
        raise bad(wrong, lambda p: f"{texts[p]} is {what} of {datatype}") from None


def _is_castable(value: Any, kind: Any) -> bool:
    try:
        value.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _tell(binding: Binding, plan: Plan, what: str, at: int = 0) -> str:
    return (
        f"column '{binding.columns[at]}' for input '{binding.tensor.name}' of model "
        f"'{plan.model.name}': {what}"
    )
