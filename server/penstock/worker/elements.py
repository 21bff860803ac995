"""Elements of BYTES: each is its length in 4 bytes, lowest first, and that many bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

_LENGTH = struct.Struct("<I")


def decode_elements(data: bytes, count: int) -> npt.NDArray[np.object_]:
    """`count` elements as an array of bytes objects, shape [count].

    Raises:
        ValueError: the data does not hold just these elements.
    """
    elements = np.empty(count, dtype=np.object_)
    offset = 0
    unpack = _LENGTH.unpack_from
    end = len(data)
    for index in range(count):
        if end - offset < 4:
            raise ValueError(f"element {index} of {count} is cut short")
        (length,) = unpack(data, offset)
        offset += 4
        if end - offset < length:
            raise ValueError(f"element {index} of {count} is cut short")
        elements[index] = data[offset : offset + length]
        offset += length
    if offset != end:
        raise ValueError(f"{end - offset} bytes behind {count} elements")
    return elements


def encode_elements(array: npt.NDArray[Any]) -> bytes:
    """The elements of an array of bytes or str objects, or of numpy's own strings, row by row.

    Raises:
        TypeError: an element is neither bytes nor str.
    """
    parts = []
    for element in array.ravel().tolist():
        if isinstance(element, str):
            element = element.encode()
        elif not isinstance(element, bytes | bytearray | np.bytes_):
            raise TypeError(f"an element of BYTES is a {type(element).__name__}, not bytes or str")
        parts.append(_LENGTH.pack(len(element)))
        parts.append(bytes(element))
    return b"".join(parts)
