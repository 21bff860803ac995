"""Golden requests: inputs with the outputs that a version must give before it takes traffic.

A file holds one, or a list::

    {"inputs":  [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [...]}],
     "outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [3]}],
     "tolerance": {"absolute": 1e-5, "relative": 1e-4}}

as requests and responses of the Open Inference Protocol are written in JSON; data may be nested. An
output may have a tolerance of its own. |got - expected| <= absolute + relative * |expected|; NaN
equals NaN. Whole numbers, truth values and strings are equal or not. Outputs that are not listed
are not looked at.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.store.failures import RefusedError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["GoldenRequest", "GoldenTensor", "differences", "read_golden", "split_golden"]

MAX_BYTES = 64 << 20
_MAX_REQUESTS = 1000
_DEFAULT = (1e-6, 1e-5)
"""Absolute and relative."""
_TYPES = {
    **{"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2", "BYTES": "O"},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class GoldenTensor:
    """A tensor: its bytes in wire layout, and for outputs how far another may be from it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes
    absolute: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """A request with its expected outputs."""

    inputs: tuple[GoldenTensor, ...]
    outputs: tuple[GoldenTensor, ...]


def split_golden(content: bytes, name: str) -> list[bytes]:
    """The requests of a file, each as a file of its own, checked.

    Raises:
        RefusedError: it holds none, or one that is none.
    """
    if len(content) > MAX_BYTES:
        raise RefusedError(f"'{name}' has more than {MAX_BYTES} bytes")
    try:
        read = json.loads(content)
        listed = read if isinstance(read, list) else [read]
        parts = [
            json.dumps(each, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            for each in listed
        ]
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"'{name}' is not JSON: {str(error)[:200]}") from None
    if not 0 < len(parts) <= _MAX_REQUESTS:
        raise RefusedError(f"'{name}' has {len(parts)} requests, expected 1 to {_MAX_REQUESTS}")
    if max(map(len, parts)) > MAX_BYTES:
        raise RefusedError(f"'{name}' has a request of more than {MAX_BYTES} bytes")
    for number, part in enumerate(parts):
        read_golden(part, name if len(parts) == 1 else f"{name} request {number}")
    return parts


def read_golden(content: bytes, name: str) -> GoldenRequest:
    """One request.

    Raises:
        RefusedError: it is none; the text says which tensor and why.
    """
    try:
        read = json.loads(content)
        tolerance = _tolerance(read, _DEFAULT)
        inputs = tuple(_tensor(each, (0.0, 0.0)) for each in read["inputs"])
        outputs = tuple(_tensor(each, _tolerance(each, tolerance)) for each in read["outputs"])
    except _BadTensorError as error:
        raise RefusedError(f"golden request '{name}': {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise RefusedError(
            f"golden request '{name}': expected inputs and outputs, each with name, datatype, "
            f"shape and data ({type(error).__name__}: {error})"
        ) from None
    if not inputs or not outputs:
        raise RefusedError(f"golden request '{name}' has no inputs or no outputs")
    return GoldenRequest(inputs, outputs)


def differences(
    golden: GoldenRequest, got: Sequence[tuple[str, str, tuple[int, ...], bytes]]
) -> Iterator[str]:
    """One sentence for each output that is not as expected: which, where and how far.

    Args:
        golden: what was expected.
        got: name, datatype, shape and bytes of the outputs.
    """
    outputs = {each[0]: each for each in got}
    for expected in golden.outputs:
        if expected.name not in outputs:
            yield f"output '{expected.name}' is missing"
            continue
        _, datatype, shape, data = outputs[expected.name]
        if (datatype, shape) != (expected.datatype, expected.shape):
            yield (
                f"output '{expected.name}': expected {expected.datatype} {list(expected.shape)}, "
                f"got {datatype} {list(shape)}"
            )
        elif data != expected.data:
            yield from _difference(expected, data)


def _difference(expected: GoldenTensor, data: bytes) -> Iterator[str]:
    import numpy as np

    want = _array(expected.datatype, expected.shape, expected.data)
    got = _array(expected.datatype, expected.shape, data)
    if expected.datatype not in _FLOATS:
        wrong = np.argwhere(want != got)
        if len(wrong):
            at = tuple(int(each) for each in wrong[0])
            yield (
                f"output '{expected.name}' at {list(at)}: expected {want[at]!s}, got {got[at]!s}; "
                f"{len(wrong)} of {want.size} elements differ"
            )
        return
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(got - want)
        allowed = expected.absolute + expected.relative * np.abs(want)
        is_near = np.isfinite(want) & np.isfinite(got) & (distance <= allowed)
        same = (want == got) | (np.isnan(want) & np.isnan(got)) | is_near
        excess = np.where(np.isfinite(distance - allowed), distance - allowed, np.inf)
    if same.all():
        return
    excess = np.where(same, -np.inf, excess)
    at = tuple(int(each) for each in np.unravel_index(int(np.argmax(excess)), excess.shape))
    yield (
        f"output '{expected.name}' is off by {distance[at]:.6g} at {list(at)}: expected "
        f"{want[at]:.6g}, got {got[at]:.6g}, allowed {allowed[at]:.6g}; "
        f"{int((~same).sum())} of {want.size} elements are off"
    )


class _BadTensorError(Exception):
    """What is wrong with a tensor."""


def _tolerance(holder: Mapping[str, Any], default: tuple[float, float]) -> tuple[float, float]:
    written = holder.get("tolerance")
    if written is None:
        return default
    if isinstance(written, Mapping) and set(written) <= {"absolute", "relative"}:
        values = [written.get("absolute", 0.0), written.get("relative", 0.0)]
        if all(isinstance(v, int | float) and math.isfinite(v) and v >= 0 for v in values):
            return float(values[0]), float(values[1])
    raise _BadTensorError(f"tolerance: expected absolute and relative, 0 or more, got {written!r}")


def _tensor(written: Mapping[str, Any], tolerance: tuple[float, float]) -> GoldenTensor:
    import numpy as np

    name, datatype, shape = written["name"], written["datatype"], written["shape"]
    if not isinstance(name, str) or datatype not in _TYPES:
        raise _BadTensorError(f"tensor {name!r}: there is no datatype {datatype!r}")
    if not isinstance(shape, list) or not all(isinstance(d, int) and d >= 0 for d in shape):
        raise _BadTensorError(f"tensor '{name}': expected a shape, got {shape!r}")
    count = math.prod(shape)
    flat = list(_flattened(written["data"]))
    if datatype in _FLOATS:
        flat = [_SPECIAL.get(each, each) if isinstance(each, str) else each for each in flat]
    if len(flat) != count:
        raise _BadTensorError(
            f"tensor '{name}': shape {shape} has {count} elements, data has {len(flat)}"
        )
    kind = bool if datatype == "BOOL" else int
    if datatype not in (*_FLOATS, "BYTES") and not all(type(each) is kind for each in flat):
        raise _BadTensorError(f"tensor '{name}': data are no {datatype}")
    try:
        if datatype == "BYTES":
            data = b"".join(_packed(each) for each in flat)
        elif datatype == "BF16":
            data = (np.array(flat, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            data = np.array(flat, dtype=_TYPES[datatype]).tobytes()
    except (ValueError, TypeError, OverflowError) as error:
        raise _BadTensorError(f"tensor '{name}': data are no {datatype}: {error}") from None
    return GoldenTensor(name, datatype, tuple(shape), data, *tolerance)


def _packed(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"expected strings, got {value!r}")
    encoded = value.encode()
    return struct.pack("<I", len(encoded)) + encoded


def _flattened(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for each in data:
            yield from _flattened(each)
    else:
        yield data


def _array(datatype: str, shape: tuple[int, ...], data: bytes) -> Array:
    import numpy as np

    if datatype == "BYTES":
        values = []
        at = 0
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "little")
            values.append(data[at + 4 : end])
            at = end
        array = np.empty(len(values), object)
        array[:] = values
        return array.reshape(shape)
    if datatype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    array = np.frombuffer(data, _TYPES[datatype]).reshape(shape)
    return array.astype("<f8") if datatype in _FLOATS else array
