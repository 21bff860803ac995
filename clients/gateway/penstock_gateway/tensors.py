"""Tensors: the lists of JSON <-> the raw bytes of the protocol, without a loop per element.

Whatever a list holds, its elements are looked at by type before numpy sees them: a number is never
wrapped, cut, rounded to another kind or read out of a string.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_gateway.errors import HttpError

__all__ = ["JSON_DATATYPES", "flatten", "from_json", "raw_contents", "to_json"]

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_BINARY_ONLY = ("FP16", "BF16")
JSON_DATATYPES = (*_DTYPES, "BYTES")
"""Datatypes whose values JSON can hold."""

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_KINDS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_WORDS = {"b": "true or false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}
_LENGTH = struct.Struct("<I")
_MAX_DIMENSIONS = 64
_PART = 4096

Raw = bytes | memoryview | npt.NDArray[Any]
"""What `bytes.join` takes: the bytes of a tensor."""


def flatten(data: list[Any], where: str) -> tuple[list[Any], list[int]]:
    """The elements of a list of lists in row-major order, and its dimensions.

    Raises:
        HttpError: lists beside elements, or of different lengths.
    """
    dimensions = [len(data)]
    while list in (kinds := set(map(type, data))):
        if len(kinds) > 1 or len(lengths := set(map(len, data))) > 1:
            raise HttpError(400, f"{where}: nested lists of different shapes")
        if len(dimensions) == _MAX_DIMENSIONS:
            raise HttpError(400, f"{where}: nested deeper than {_MAX_DIMENSIONS} lists")
        dimensions.append(lengths.pop())
        data = list(chain.from_iterable(data))
    return data, dimensions


def from_json(datatype: str, data: object, where: str) -> tuple[Raw, list[int]]:
    """The raw bytes of a tensor that came as lists, flat or nested, and the lists' dimensions.

    Args:
        datatype: of the protocol.
        data: what JSON held.
        where: the tensor, for messages.

    Raises:
        HttpError: it is no list, or holds what the datatype does not.
    """
    if not isinstance(data, list):
        raise HttpError(400, f"{where}: expected 'data' to be a list")
    elements, dimensions = flatten(data, where)
    if datatype == "BYTES":
        return _pack(elements, where), dimensions
    return _numbers(datatype, elements, where), dimensions


def to_json(datatype: str, raw: bytes, where: str) -> Any:
    """What orjson writes as the flat list of the tensor's elements.

    JSON has no NaN and no infinity: orjson writes null for them.

    Raises:
        HttpError: JSON cannot hold the datatype, or bytes that are no text; the bytes are not
            whole elements.
    """
    if datatype == "BYTES":
        return _unpack(raw, where)
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise _no_json(datatype, where)
    if len(raw) % dtype.itemsize:
        raise HttpError(500, f"{where}: {len(raw)} bytes are no whole number of {datatype}")
    return np.frombuffer(raw, dtype)


def raw_contents(response: Any) -> Sequence[bytes]:
    """The raw bytes of each output of a ModelInferResponse, also of one with typed contents.

    Raises:
        HttpError: the response does not hold together.
    """
    raws: Sequence[bytes] = response.raw_output_contents
    outputs = response.outputs
    if not raws and any(output.HasField("contents") for output in outputs):
        return [_raw_of(output) for output in outputs]
    if len(raws) != len(outputs):
        raise HttpError(500, f"{len(outputs)} outputs came with {len(raws)} contents")
    return raws


def _raw_of(output: Any) -> bytes:
    where = f"output '{output.name}'"
    if output.datatype == "BYTES":
        return _prefixed(output.contents.bytes_contents)
    dtype, name = _DTYPES.get(output.datatype), _CONTENTS.get(output.datatype)
    if dtype is None or name is None:
        raise HttpError(500, f"{where}: no contents have the datatype '{output.datatype[:64]}'")
    try:
        return np.array(getattr(output.contents, name), dtype).tobytes()
    except OverflowError:
        message = f"{where}: its contents are out of the range of {output.datatype}"
        raise HttpError(500, message) from None


def _numbers(datatype: str, elements: list[Any], where: str) -> npt.NDArray[Any]:
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise _no_json(datatype, where)
    if not set(map(type, elements)) <= _KINDS[dtype.kind]:
        raise HttpError(400, f"{where}: expected {_WORDS[dtype.kind]} for {datatype}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(elements, dtype)
    except OverflowError:
        raise HttpError(400, f"{where}: a number is out of the range of {datatype}") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise HttpError(400, f"{where}: a number is out of the range of {datatype}")
    return array


def _no_json(datatype: str, where: str) -> HttpError:
    if datatype in _BINARY_ONLY:
        text = f"sending {datatype} data via JSON is not supported. Please use the binary data"
        return HttpError(400, f"{text} format for {where}")
    return HttpError(400, f"{where}: unknown datatype '{datatype[:64]}'")


def _pack(elements: list[Any], where: str) -> bytes:
    if not set(map(type, elements)) <= {str}:
        raise HttpError(400, f"{where}: expected strings for BYTES")
    return _prefixed(elements, str.encode)


def _prefixed(texts: Sequence[Any], encode: Callable[[Any], bytes] = bytes) -> bytes:
    """Each with its length before it; in parts, for the pieces of one take many times its bytes."""
    packed = bytearray()
    for at in range(0, len(texts), _PART):
        part = list(map(encode, texts[at : at + _PART]))
        lengths = map(_LENGTH.pack, map(len, part))
        packed += b"".join(chain.from_iterable(zip(lengths, part, strict=True)))
    return bytes(packed)


def _unpack(raw: bytes, where: str) -> list[str]:
    texts: list[str] = []
    at = 0
    try:
        while at < len(raw):
            start = at + _LENGTH.size
            if start <= len(raw):
                at = start + _LENGTH.unpack_from(raw, at)[0]
            if max(start, at) > len(raw):
                raise HttpError(500, f"{where}: its BYTES end in the middle of an element")
            texts.append(raw[start:at].decode())
    except UnicodeDecodeError:
        message = f"{where}: its bytes are no text, which JSON wants; ask for binary data"
        raise HttpError(400, message) from None
    return texts
