"""Tensors, errors and datatypes of `triton_python_backend_utils`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.worker.datatypes import BF16, BYTES, NAMES, NUMBERS, NUMPY, number_of_array
from penstock.worker.elements import decode_elements, encode_elements

# Triton counts as the protocol's names go, but for BF16, which came last.
_TRITON_NAMES = tuple(name for name in NAMES if name != "BF16") + ("BF16",)
_TRITON_NUMBERS = tuple(_TRITON_NAMES.index(name) for name in NAMES)


class TritonModelException(Exception):  # noqa: N818 - Triton's name
    """Raised by a model, or by these utilities, to fail what is being done."""


class TritonError:
    """Why a request has no response: a text and a code (gRPC's numbers)."""

    UNKNOWN = 2
    INTERNAL = 13
    NOT_FOUND = 5
    INVALID_ARG = 3
    UNAVAILABLE = 14
    UNSUPPORTED = 12
    ALREADY_EXISTS = 6
    CANCELLED = 1

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = str(message)
        self._code = int(code)

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> int:
        """The code."""
        return self._code


class Tensor:
    """A named tensor of this process's memory.

    BF16 has no numpy type: `as_numpy` refuses it, DLPack gives its bits as UINT16.
    """

    def __init__(self, name: str, numpy_array: npt.ArrayLike) -> None:
        array: npt.NDArray[Any] = np.asarray(numpy_array)
        number = number_of_array(array.dtype)
        if not number:
            raise TritonModelException(f"tensor '{name}': numpy's {array.dtype} is no datatype")
        if number == BYTES and array.dtype.kind == "U":
            array = array.astype(np.object_)
        self._set(name, number, array)

    def _set(self, name: str, number: int, array: npt.NDArray[Any]) -> None:
        self._name = name
        self._number = number
        self._array = array

    @classmethod
    def of(cls, name: str, number: int, array: npt.NDArray[Any]) -> Tensor:
        """A tensor of a datatype's number; for BF16 the array holds its bits."""
        tensor = cls.__new__(cls)
        tensor._set(name, number, array)
        return tensor

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """A tensor that shares the memory of another library's, which is on the CPU.

        Args:
            name: what it is called.
            tensor: a tensor of another library, or the capsule of one.
        """
        if type(tensor).__name__ == "PyCapsule":
            tensor = _Capsule(tensor)
        if hasattr(tensor, "__dlpack_device__") and tensor.__dlpack_device__()[0] not in (1, 3):
            raise TritonModelException(f"tensor '{name}' is not in the CPU's memory")
        if not hasattr(tensor, "__dlpack__"):
            raise TritonModelException(
                f"tensor '{name}': {type(tensor).__name__} has no __dlpack__"
            )
        try:
            array: npt.NDArray[Any] = np.from_dlpack(tensor)
        except Exception as error:  # of a datatype that numpy has not, of a GPU, used before
            raise TritonModelException(f"tensor '{name}' cannot be taken: {error}") from error
        return Tensor(name, array)

    def to_dlpack(self) -> Any:
        """A capsule that another library's from_dlpack takes."""
        return self._array.__dlpack__()

    def __dlpack__(self, **_: object) -> Any:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def name(self) -> str:
        """Its name."""
        return self._name

    def as_numpy(self) -> npt.NDArray[Any]:
        """Its elements."""
        if self._number == BF16:
            raise TritonModelException(f"tensor '{self._name}' is BF16, which numpy does not have")
        return self._array

    def shape(self) -> list[int]:
        """Its dims."""
        return list(self._array.shape)

    def triton_dtype(self) -> int:
        """The number of its datatype, as Triton counts them."""
        return _TRITON_NUMBERS[self._number]

    def is_cpu(self) -> bool:
        """Whether it is in the CPU's memory: always."""
        return True

    def bits(self) -> npt.NDArray[Any]:
        """Its elements, of BF16 the bits."""
        return self._array


class _Capsule:
    """A capsule as numpy takes it; which device it is of numpy reads in the capsule."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: object) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The numpy type of "TYPE_FP32" and so on; None for BF16, which has none."""
    name = triton_type_string.removeprefix("TYPE_")
    return _numpy_type(NUMBERS.get("BYTES" if name == "STRING" else name, 0), triton_type_string)


def triton_to_numpy_type(data_type: int) -> Any:
    """The numpy type of a datatype's number."""
    is_known = 0 < data_type < len(_TRITON_NAMES)
    return _numpy_type(NUMBERS[_TRITON_NAMES[data_type]] if is_known else 0, data_type)


def _numpy_type(number: int, given: object) -> Any:
    if not number:
        raise TritonModelException(f"{given!r} is no datatype")
    return None if number == BF16 else NUMPY[number].type


def numpy_to_triton_type(data_type: Any) -> int:
    """The number of the datatype of a numpy type."""
    number = number_of_array(np.dtype(data_type))
    if not number:
        raise TritonModelException(f"numpy's {np.dtype(data_type)} is no datatype")
    return _TRITON_NUMBERS[number]


def serialize_byte_tensor(input_tensor: npt.NDArray[Any]) -> bytes | tuple[()] | None:
    """The elements of a tensor of bytes or other objects, each behind its length.

    Returns:
        () of no elements, None of a tensor of another datatype.
    """
    array: npt.NDArray[Any] = np.asarray(input_tensor)
    if array.size == 0:
        return ()
    if array.dtype.kind not in "OS":
        return None
    texts = [each if isinstance(each, bytes) else str(each) for each in array.ravel().tolist()]
    return encode_elements(np.array(texts, dtype=np.object_))


def deserialize_bytes_tensor(encoded_tensor: bytes) -> npt.NDArray[Any]:
    """The elements that `serialize_byte_tensor` made one of, shape [count]."""
    data = bytes(encoded_tensor)
    count, offset = 0, 0
    while offset + 4 <= len(data):
        offset += 4 + int.from_bytes(data[offset : offset + 4], "little")
        count += 1
    return decode_elements(data, count)
