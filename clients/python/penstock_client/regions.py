"""Memory that a client and a server on one machine share: what its kinds have in common.

A region is a piece of memory that a server knows by name; requests place inputs in it, and have
outputs written to it. `shared_memory.SharedMemory` is the system's, `cuda_memory.CudaMemory` a
GPU's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock_client.errors import ProtocolError, TensorError
from penstock_client.tensors import byte_size_of

__all__ = ["MemoryRegion", "SharedRoom", "SharedTensor"]


class MemoryRegion(ABC):
    """A region that requests can place tensors in.

    Attributes:
        name: What requests call it, once it is registered with a server.
        byte_size: Its size.
    """

    name: str
    byte_size: int

    @abstractmethod
    def put(self, value: Any, offset: int = 0) -> SharedTensor:
        """Writes an array and gives it as an input for requests."""

    @abstractmethod
    def read(self, room: SharedRoom, datatype: str, shape: Sequence[int], where: str) -> Any:
        """The tensor that a server put into a room."""

    def tensor(self, datatype: str, shape: Sequence[int], offset: int = 0) -> SharedTensor:
        """An input that lies there already.

        Raises:
            TensorError: It is not of a fixed size, or does not lie within the memory.
        """
        size = byte_size_of(datatype, shape)
        if size is None:
            raise TensorError(f"{self!r}: the size of {datatype} {list(shape)} is not known")
        return SharedTensor(self, datatype, tuple(shape), offset, size)

    def room(self, byte_size: int, offset: int = 0) -> SharedRoom:
        """Room for an output, which may turn out smaller.

        Raises:
            TensorError: It does not lie within the memory.
        """
        return SharedRoom(self, offset, byte_size)


@dataclass(frozen=True, slots=True, eq=False)
class SharedRoom:
    """A stretch of a `MemoryRegion`, as the place of an output: see `MemoryRegion.room`.

    Attributes:
        memory: Where it lies.
        offset: In bytes from the memory's begin.
        byte_size: Of the stretch.
    """

    memory: MemoryRegion
    offset: int
    byte_size: int

    def __post_init__(self) -> None:
        """Refuses what does not lie within the memory."""
        _check_bounds(self.memory, self.offset, self.byte_size)

    @property
    def end(self) -> int:
        """The offset of what may lie behind it."""
        return self.offset + self.byte_size

    def read(self, datatype: str, shape: Sequence[int], where: str) -> Any:
        """The output that a server put here, as the memory gives arrays.

        Raises:
            ProtocolError: Such a tensor would be larger than the room.
        """
        return self.memory.read(self, datatype, shape, where)

    def too_small(self, datatype: str, shape: Sequence[int], where: str) -> ProtocolError:
        """The error of a tensor that does not fit."""
        return ProtocolError(
            f"{where}: {datatype} {list(shape)} does not fit into the {self.byte_size} bytes "
            f"at {self.offset} of {self.memory!r}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class SharedTensor:
    """An input that lies in a `MemoryRegion`: see `MemoryRegion.put`.

    Attributes:
        memory: Where it lies.
        datatype: Wire datatype, for instance "FP32".
        shape: Dimensions, the batch dimension included.
        offset: In bytes from the memory's begin.
        byte_size: Its size.
    """

    memory: MemoryRegion
    datatype: str
    shape: tuple[int, ...]
    offset: int
    byte_size: int

    def __post_init__(self) -> None:
        """Refuses what does not lie within the memory."""
        _check_bounds(self.memory, self.offset, self.byte_size)

    @property
    def end(self) -> int:
        """The offset of what may lie behind it."""
        return self.offset + self.byte_size


def _check_bounds(memory: MemoryRegion, offset: int, byte_size: int) -> None:
    if offset < 0 or byte_size < 0 or offset + byte_size > memory.byte_size:
        raise TensorError(f"{memory!r} has no {byte_size} bytes at {offset}")
