"""Datatypes by their three names: the protocol's, the packet's number, and numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.worker.failure import ModelFault

NAMES = (
    "INVALID",
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
)
"""By number."""

NUMBERS = {name: number for number, name in enumerate(NAMES)}
BYTES = NUMBERS["BYTES"]
BF16 = NUMBERS["BF16"]

NUMPY: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(each)
    for each in (
        # "INVALID" has none; numpy has no BF16: its bits are UINT16's.
        [np.void, np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16]
        + [np.int32, np.int64, np.float16, np.uint16, np.float32, np.float64, np.object_]
    )
)
"""By number."""

_BY_NUMPY = {
    dtype: number
    for number, dtype in enumerate(NUMPY)
    if number not in (0, BF16) and dtype != np.object_
}


def number_of(datatype: object) -> int:
    """The number of a datatype as a model writes it: "FP32", "TYPE_FP32", np.float32, bytes, str.

    Raises:
        ModelFault: it is none.
    """
    if isinstance(datatype, str):
        name = datatype.removeprefix("TYPE_")
        number = NUMBERS.get("BYTES" if name == "STRING" else name, 0)
        if number:
            return number
    elif datatype in (bytes, str, object):
        return BYTES
    else:
        number = _number_of_numpy(datatype)
        if number:
            return number
    raise ModelFault(f"{datatype!r} is no datatype, expected one of {', '.join(NAMES[1:])}")


def _number_of_numpy(datatype: object) -> int:
    try:
        return number_of_array(np.dtype(datatype))  # type: ignore[call-overload]
    except TypeError:
        return 0


def number_of_array(dtype: np.dtype[Any]) -> int:
    """The number of what an array of this type is sent as; 0 = nothing."""
    if dtype.kind in "OSU":
        return BYTES
    return _BY_NUMPY.get(dtype.newbyteorder("="), 0)
