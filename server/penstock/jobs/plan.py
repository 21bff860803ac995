"""The plan of a job: which columns become which tensors, checked before the first row. Pure.

Types, after dictionaries are decoded; whatever depends on a value is checked row by row, and a row
that fails is rejected:

    tensor      column
    BOOL        bool
    INT, UINT   any integers; a value out of range is rejected, never wrapped
    FP          floats as wide or narrower, and integers that are exact; wider floats with may_round
    BF16        floats with may_round
    BYTES       strings and binary

Of text (CSV, JSON Lines) numbers are read as the tensor's type. A row of shape [a, b] is a list of
lists, or one list of a x b values; a scalar is a plain value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from penstock.jobs.failures import PlanError
from penstock.jobs.model import ModelInfo, TensorInfo

_FLOAT_BITS = {"FP16": 16, "FP32": 32, "FP64": 64, "BF16": 16}

_ARROW_TYPES = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float16(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BF16": pa.float32(),
    "BYTES": pa.binary(),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the input.

    Attributes:
        name: of the column.
        type: its Arrow type.
        nulls: how many there are, where the files say; None = unknown.
    """

    name: str
    type: Any
    nulls: int | None = None


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How columns become tensors.

    Attributes:
        maps: columns by tensor, where the names differ or several make one; may be patterns.
        key: column that is carried to the outputs first, and to rejects; "" = none.
        keep: further columns to carry.
        may_round: floats may be rounded to the tensor's type.
        is_text: the values were written as text.
    """

    maps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    key: str = ""
    keep: tuple[str, ...] = ()
    may_round: bool = False
    is_text: bool = False

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that go to the outputs, the key first."""
        return tuple(dict.fromkeys((*((self.key,) if self.key else ()), *self.keep)))


@dataclass(frozen=True, slots=True)
class Binding:
    """One input and where its values come from.

    Attributes:
        tensor: the input.
        columns: one, or several scalar ones that make a row together.
        is_flat: the one column holds a whole row of several dimensions as one list.
    """

    tensor: TensorInfo
    columns: tuple[str, ...]
    is_flat: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What the job will do with each row.

    Attributes:
        model: the model.
        bindings: one for each input that is sent.
        carried: columns that go to the outputs.
        key: the one that rejects name too; "" = none.
        schema: of the outputs.
        columns: what is read, in the input's order.
        notes: what the user may want to know.
    """

    model: ModelInfo
    bindings: tuple[Binding, ...]
    carried: tuple[str, ...]
    key: str
    schema: Any
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def make_plan(model: ModelInfo, columns: Sequence[Column], options: PlanOptions) -> Plan:
    """Binds columns to tensors.

    Args:
        model: what is to run.
        columns: what the input has.
        options: how.

    Raises:
        PlanError: a line for every problem.
    """
    by_name = {column.name: column for column in columns}
    faults = _name_faults(model, by_name, options)
    bindings = []
    for tensor in model.inputs:
        names = _columns_of(tensor, options, by_name, faults, model)
        if names:
            binding, found = _bind(tensor, [by_name[name] for name in names], options)
            faults += [f"model '{model.name}': {fault}" for fault in found]
            bindings.append(binding)
    if faults:
        raise PlanError(*faults)
    used = {*options.carried, *(name for each in bindings for name in each.columns)}
    return Plan(
        model,
        tuple(bindings),
        options.carried,
        options.key,
        _output_schema(model, [by_name[name] for name in options.carried]),
        tuple(column for column in columns if column.name in used),
        tuple(_notes(columns, bindings, used)),
    )


def output_type(tensor: TensorInfo) -> Any:
    """The Arrow type of an output's column."""
    kind = _ARROW_TYPES[tensor.datatype]
    for size in reversed(tensor.shape):
        kind = pa.list_(kind, size) if size >= 0 else pa.list_(kind)
    return kind


def wanted_type(tensor: TensorInfo) -> Any:
    """As which type to read an input from JSON, where numbers have none of their own."""
    kind = _ARROW_TYPES[tensor.datatype]
    if pt.is_integer(kind):
        kind = pa.uint64() if tensor.datatype == "UINT64" else pa.int64()
    elif tensor.datatype == "BYTES":
        kind = pa.string()
    elif tensor.datatype == "FP16":
        kind = pa.float32()
    for _ in tensor.shape:
        kind = pa.list_(kind)
    return kind


def expand(patterns: Iterable[str], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Column names for names and patterns, and those that fit nothing."""
    known = list(names)
    found: list[str] = []
    missing = []
    for pattern in patterns:
        hits = [pattern] if pattern in known else [n for n in known if fnmatchcase(n, pattern)]
        found += hits
        if not hits:
            missing.append(pattern)
    return found, missing


def _name_faults(
    model: ModelInfo, by_name: Mapping[str, Column], options: PlanOptions
) -> list[str]:
    inputs = {tensor.name for tensor in model.inputs}
    faults = [
        f"model '{model.name}' has no input '{name}' to map columns to, only {quoted(inputs)}"
        for name in options.maps
        if name not in inputs
    ]
    outputs = {tensor.name for tensor in model.outputs}
    for name in options.carried:
        if name not in by_name:
            faults.append(f"the input has no column '{name}' to carry, only {quoted(by_name)}")
        elif name in outputs:
            faults.append(
                f"column '{name}' cannot be carried: an output of model '{model.name}' has its name"
            )
    return faults


def _columns_of(
    tensor: TensorInfo,
    options: PlanOptions,
    by_name: Mapping[str, Column],
    faults: list[str],
    model: ModelInfo,
) -> list[str]:
    patterns = options.maps.get(tensor.name)
    found, missing = expand(patterns or (tensor.name,), by_name)
    if missing and not (tensor.optional and patterns is None):
        faults.append(
            f"model '{model.name}', input '{tensor.name}': no column {quoted(missing)}, expected "
            f"{tensor.describe()}, got columns {quoted(by_name)}"
        )
    return [] if missing else found


def _bind(
    tensor: TensorInfo, columns: list[Column], options: PlanOptions
) -> tuple[Binding, list[str]]:
    if len(columns) > 1:
        return _bind_several(tensor, columns, options)
    (column,) = columns
    is_flat, fault = _shape_fault(tensor, column.type, options)
    fault = fault or _value_fault(tensor.datatype, leaf_type(column.type), options)
    return Binding(tensor, (column.name,), is_flat), (
        [_fault(tensor, column, fault)] if fault else []
    )


def _bind_several(
    tensor: TensorInfo, columns: list[Column], options: PlanOptions
) -> tuple[Binding, list[str]]:
    names = tuple(column.name for column in columns)
    faults = []
    if len(tensor.wire_shape) != 1 or tensor.wire_shape[0] not in (-1, len(columns)):
        faults.append(
            f"input '{tensor.name}': {len(columns)} columns ({quoted(names)}) make a row of shape "
            f"[{len(columns)}], expected {tensor.describe()}"
        )
    for column in columns:
        fault = "a plain value is expected" if list_depth(column.type) else ""
        fault = fault or _value_fault(tensor.datatype, leaf_type(column.type), options)
        if fault:
            faults.append(_fault(tensor, column, fault))
    return Binding(tensor, names), faults


def _fault(tensor: TensorInfo, column: Column, fault: str) -> str:
    return (
        f"input '{tensor.name}', column '{column.name}': expected {tensor.describe()}, "
        f"got {column.type}: {fault}"
    )


def list_depth(kind: Any) -> int:
    """How many lists lie around a value."""
    depth = 0
    while is_list(kind):
        kind = kind.value_type
        depth += 1
    return depth


def is_list(kind: Any) -> bool:
    """Whether it is a list of any sort."""
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def leaf_type(kind: Any) -> Any:
    """The type of the values within lists and dictionaries."""
    while is_list(kind) or pt.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _shape_fault(tensor: TensorInfo, kind: Any, options: PlanOptions) -> tuple[bool, str]:
    """Whether rows are flat lists, and what is wrong with the nesting."""
    depth = list_depth(kind)
    if depth in (len(tensor.shape), len(tensor.wire_shape)):
        shape = tensor.shape if depth == len(tensor.shape) else tensor.wire_shape
        return False, _size_fault(kind, shape)
    if depth == 1 and tensor.shape and min(tensor.shape) >= 0:
        return True, _size_fault(kind, (math.prod(tensor.shape),))
    if depth == 0 and options.is_text and not tensor.shape:
        return False, ""
    lists = "1 list" if depth == 1 else f"{depth} lists"
    return False, f"values within {lists}, expected {len(tensor.shape)}"


def _size_fault(kind: Any, shape: tuple[int, ...]) -> str:
    for size in shape:
        if pt.is_fixed_size_list(kind) and size >= 0 and kind.list_size != size:
            return f"lists of {kind.list_size}, expected {size}"
        kind = kind.value_type
    return ""


def _value_fault(datatype: str, kind: Any, options: PlanOptions) -> str:
    """Why values of this type cannot become the datatype; "" if they can."""
    if pt.is_null(kind):
        return "the column holds nothing but nulls"
    if options.is_text and is_string(kind):
        return ""
    if datatype == "BYTES":
        return "" if is_string(kind) else "strings or binary are expected"
    if datatype == "BOOL":
        return "" if pt.is_boolean(kind) else "booleans are expected"
    if datatype in _FLOAT_BITS:
        return _float_fault(datatype, kind, options)
    if pt.is_integer(kind):
        return ""
    why = "a fraction would be cut off" if pt.is_floating(kind) else "integers are expected"
    return why


def _float_fault(datatype: str, kind: Any, options: PlanOptions) -> str:
    if pt.is_integer(kind) and datatype != "BF16":
        return ""
    if not pt.is_floating(kind):
        return "numbers are expected"
    fits = datatype != "BF16" and kind.bit_width <= _FLOAT_BITS[datatype]
    if fits or options.may_round or options.is_text:
        return ""
    return "values would be rounded: say --round"


def is_string(kind: Any) -> bool:
    """Whether values of the type are strings or bytes."""
    return bool(
        pt.is_string(kind)
        or pt.is_large_string(kind)
        or pt.is_binary(kind)
        or pt.is_large_binary(kind)
        or pt.is_fixed_size_binary(kind)
        or pt.is_string_view(kind)
        or pt.is_binary_view(kind)
    )


def _output_schema(model: ModelInfo, carried: Iterable[Column]) -> Any:
    fields = [pa.field(column.name, column.type) for column in carried]
    fields += [pa.field(tensor.name, output_type(tensor)) for tensor in model.outputs]
    return pa.schema(fields)


def _notes(columns: Iterable[Column], bindings: Sequence[Binding], used: set[str]) -> Iterable[str]:
    bound = {name for each in bindings for name in each.columns}
    for column in columns:
        if column.nulls and column.name in bound:
            yield f"column '{column.name}' holds {column.nulls} nulls: their rows will be rejected"
    unused = [column.name for column in columns if column.name not in used]
    if unused:
        yield f"not used: {quoted(unused)}"


def quoted(names: Iterable[str]) -> str:
    """Names for a message, the first few of many."""
    listed = sorted(names) if isinstance(names, set) else list(names)
    shown = ", ".join(f"'{name}'" for name in listed[:10])
    return shown + (f" and {len(listed) - 10} more" if len(listed) > 10 else "") or "none"
