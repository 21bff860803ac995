"""numpy arrays <-> the datatypes of the Open Inference protocol.

    wire      numpy                          bytes per element, little-endian, row-major
    BOOL      bool                           1 (0 or 1)
    UINT8-64  uint8 uint16 uint32 uint64     1 2 4 8
    INT8-64   int8 int16 int32 int64         1 2 4 8
    FP16-64   float16 float32 float64        2 4 8
    BF16      ml_dtypes.bfloat16, see below  2
    BYTES     object, str_ (U), bytes_ (S)   uint32 length, then that many bytes

BYTES: `str` elements travel as UTF-8; what comes back is always an object array of `bytes`.
A fixed-width `S` array cannot tell a trailing NUL from padding (numpy drops them): use an object
array where that matters.

BF16: numpy has no such type. With the optional package `ml_dtypes` installed, arrays of
`ml_dtypes.bfloat16` are sent as BF16 and BF16 outputs come back as such. Without it, say what you
mean with `Tensor(array, "BF16")`: float arrays are rounded to the nearest bfloat16 (ties to even,
as ml_dtypes and hardware do; NaN stays NaN), uint16 arrays are taken as the bits themselves; BF16
outputs come back as float32, which holds every bfloat16 exactly. `out.astype(np.float32)` is
therefore right in both worlds.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_client.errors import ProtocolError, TensorError

Array = npt.NDArray[Any]

NUMPY_TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The datatypes that numpy has, as they lie on the wire; BF16 and BYTES are not among them."""

_WIRE_OF_NUMPY = {(dtype.kind, dtype.itemsize): name for name, dtype in NUMPY_TYPES.items()}

DATATYPES: tuple[str, ...] = (*NUMPY_TYPES, "BF16", "BYTES")
"""Every datatype of the protocol that this client speaks."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An input whose wire datatype is spelled out, where numpy's own type does not say it.

    Only needed for BF16 without `ml_dtypes`; also a guard, for a datatype that does not fit the
    array is refused before anything is sent.

    Attributes:
        data: The values, any shape.
        datatype: One of `DATATYPES`, for instance "BF16".
    """

    data: Array
    datatype: str


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A tensor as the protocol carries it: the datatype's name, the shape, and the raw bytes."""

    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview


def datatype_of(array: Array) -> str | None:
    """The wire datatype a numpy array is sent as, or None when the protocol has none for it."""
    dtype = array.dtype
    datatype = _WIRE_OF_NUMPY.get((dtype.kind, dtype.itemsize))
    if datatype is None and dtype.kind in "OSUT":
        return "BYTES"
    if datatype is None and dtype.name == "bfloat16":
        return "BF16"
    return datatype


def encode(value: object, where: str) -> WireTensor:
    """Turns an array into what goes over the wire.

    Args:
        value: A numpy array or scalar, a `Tensor`, or anything with `__array__` (a CPU torch
            tensor, a JAX array, ...). Lists are refused: their datatype would be a guess.
        where: What the value is, for error messages: "input 'x' of model 'm'".

    Raises:
        TensorError: The value has no datatype on the wire, or not the one asked for.
    """
    if isinstance(value, Tensor):
        return _encode_named(_as_array(value.data, where), value.datatype, where)
    array = _as_array(value, where)
    datatype = datatype_of(array)
    if datatype is None:
        raise TensorError(
            f"{where}: numpy dtype '{array.dtype}' has no datatype in the protocol, expected one "
            f"that maps to {', '.join(DATATYPES)}"
        )
    return WireTensor(datatype, array.shape, _raw(array, datatype, where))


def decode(wire: WireTensor, where: str) -> Array:
    """Turns what came over the wire into an array.

    Fixed-size datatypes give a read-only view on the received bytes (no copy): `.copy()` it to
    write to it. BYTES gives an object array of `bytes`.

    Raises:
        ProtocolError: Unknown datatype, negative dimension, or bytes that deny the shape.
    """
    count = _element_count(wire, where)
    if wire.datatype == "BYTES":
        return _decode_bytes(wire, count, where)
    dtype = np.dtype("<u2") if wire.datatype == "BF16" else NUMPY_TYPES.get(wire.datatype)
    if dtype is None:
        raise ProtocolError(f"{where}: unknown datatype '{wire.datatype}'")
    if len(wire.raw) != count * dtype.itemsize:
        raise ProtocolError(
            f"{where}: got {len(wire.raw)} bytes, expected {count * dtype.itemsize} for "
            f"{wire.datatype} {list(wire.shape)}"
        )
    array = np.frombuffer(wire.raw, dtype).reshape(wire.shape)
    return _bf16_from_bits(array) if wire.datatype == "BF16" else array


def byte_size_of(datatype: str, shape: Sequence[int]) -> int | None:
    """The bytes of a tensor of a fixed-size datatype; None for any other."""
    if datatype == "BF16":
        return 2 * math.prod(shape)
    dtype = NUMPY_TYPES.get(datatype)
    return None if dtype is None else dtype.itemsize * math.prod(shape)


def leading_bytes(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> int:
    """How many bytes a tensor has that lies at the begin of `raw`; more than those if it is cut.

    Raises:
        ValueError: Datatype or shape are none.
    """
    size = byte_size_of(datatype, shape)
    if size is None and datatype != "BYTES" or any(dim < 0 for dim in shape):
        raise ValueError(f"{datatype} {list(shape)}")
    if size is not None:
        return size
    at = 0
    for _ in range(math.prod(shape)):
        if at + _LENGTH.size > len(raw):
            return len(raw) + 1
        at += _LENGTH.size + int(_LENGTH.unpack_from(raw, at)[0])
    return at


def array_of_contents(datatype: str, values: Sequence[Any], where: str) -> WireTensor:
    """The flat typed `contents` of a response (some servers send no raw bytes) as a wire tensor.

    Raises:
        ProtocolError: The datatype cannot travel as typed contents.
    """
    shape = (len(values),)
    if datatype == "BYTES":
        return WireTensor(datatype, shape, _pack_bytes(values))
    dtype = NUMPY_TYPES.get(datatype)
    if dtype is None or datatype == "FP16":
        raise ProtocolError(f"{where}: datatype '{datatype}' cannot travel as typed contents")
    try:
        return WireTensor(datatype, shape, np.array(values, dtype).tobytes())
    except OverflowError as error:
        raise ProtocolError(f"{where}: a value does not fit datatype '{datatype}'") from error


def _is_on_gpu(value: object) -> bool:
    """Whether only a GPU's library can read it. DLPack's 1 and 3 are the host's memory."""
    where = getattr(value, "__dlpack_device__", None)
    if where is not None:
        return where()[0] not in (1, 3)
    return hasattr(value, "__cuda_array_interface__")


def _as_array(value: object, where: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if _is_on_gpu(value):
        raise TensorError(
            f"{where}: this {type(value).__name__} lies on a GPU: expected a copy on the host, or "
            "its place in a CudaMemory (CudaMemory.put)"
        )
    if not hasattr(value, "__array__"):
        raise TensorError(
            f"{where}: got a {type(value).__name__}, expected a numpy array "
            "(np.asarray(value, dtype=...) makes one)"
        )
    return np.asarray(value)


def _encode_named(array: Array, datatype: str, where: str) -> WireTensor:
    """The array as the datatype its caller named: BF16 is rounded to, any other has to fit."""
    if datatype != "BF16" and datatype_of(array) != datatype:
        known = "" if datatype in DATATYPES else f", which is none of {', '.join(DATATYPES)}"
        raise TensorError(
            f"{where}: numpy dtype '{array.dtype}' does not fit datatype '{datatype}'{known}"
        )
    return WireTensor(datatype, array.shape, _raw(array, datatype, where))


def _raw(array: Array, datatype: str, where: str) -> bytes:
    if datatype == "BYTES":
        return _encode_bytes(array, where)
    if datatype == "BF16":
        return _bf16_bits(array, where).tobytes()
    return array.astype(NUMPY_TYPES[datatype], copy=False).tobytes()


def _element_count(wire: WireTensor, where: str) -> int:
    if any(dim < 0 for dim in wire.shape):
        raise ProtocolError(f"{where}: negative dimension in shape {list(wire.shape)}")
    return math.prod(wire.shape)


# BYTES: every element is a little-endian uint32 length followed by that many bytes.


def _encode_bytes(array: Array, where: str) -> bytes:
    elements = array.ravel().tolist()
    for position, element in enumerate(elements):
        if isinstance(element, str):
            elements[position] = element.encode()
        elif not isinstance(element, bytes):
            raise TensorError(
                f"{where}: element {position} is a {type(element).__name__}, expected bytes or "
                "str (object arrays are sent as BYTES)"
            )
    return _pack_bytes(elements)


def _pack_bytes(elements: Sequence[bytes]) -> bytes:
    pieces: list[bytes] = []
    for element in elements:
        pieces.append(_LENGTH.pack(len(element)))
        pieces.append(element)
    return b"".join(pieces)


def _decode_bytes(wire: WireTensor, count: int, where: str) -> Array:
    raw, at = wire.raw, 0
    elements: list[bytes] = []
    while at < len(raw):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else start
        if end > len(raw):
            raise ProtocolError(f"{where}: BYTES element {len(elements)} runs past the end")
        elements.append(bytes(raw[start:end]))
        at = end
    if len(elements) != count:
        raise ProtocolError(
            f"{where}: got {len(elements)} BYTES elements, expected {count} for {list(wire.shape)}"
        )
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array.reshape(wire.shape)


# BF16: the upper half of a float32.


@functools.cache
def _bfloat16_dtype() -> np.dtype[Any] | None:
    """ml_dtypes' bfloat16 if that package is there; looked for at the first BF16 output only."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _bf16_bits(array: Array, where: str) -> npt.NDArray[np.uint16]:
    if array.dtype.name == "bfloat16":
        return array.view(np.uint16).astype("<u2", copy=False)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return array.astype("<u2", copy=False)
    if array.dtype.kind == "f":
        return round_to_bf16(array.astype(np.float32))
    raise TensorError(
        f"{where}: numpy dtype '{array.dtype}' cannot be sent as BF16, expected bfloat16, a float "
        "type (rounded to nearest) or uint16 (the bits)"
    )


def round_to_bf16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16 of each float32, ties to even; NaN stays NaN."""
    bits = array.view(np.uint32)
    with np.errstate(over="ignore"):  # only a NaN can wrap, and it takes the other branch below
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16
    quiet_nan = (bits >> 16) | 0x0040
    return np.where(np.isnan(array), quiet_nan, rounded).astype("<u2")


def _bf16_from_bits(bits: npt.NDArray[np.uint16]) -> Array:
    dtype = _bfloat16_dtype()
    if dtype is not None:
        return bits.astype(np.uint16, copy=False).view(dtype)
    return (bits.astype(np.uint32) << 16).view(np.float32)
