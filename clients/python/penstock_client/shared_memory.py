"""System shared memory: tensors that a client and a server on one machine hand over in place.

    with SharedMemory.create(1 << 20) as memory, Client("localhost:8001") as client:
        with client.shared_memory(memory):
            image = memory.put(np.zeros((1, 64), np.float32))
            label = memory.room(8, offset=image.end)
            print(client.infer("digits", {"X": image}, outputs={"label": label})["label"])

The server reads and writes the memory while a request is under way, also one whose caller gave up
waiting: until its answer has come, leave its tensors alone.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import uuid4

from penstock_client.errors import SharedMemoryError
from penstock_client.regions import MemoryRegion, SharedRoom, SharedTensor
from penstock_client.tensors import Array, WireTensor, decode, encode, leading_bytes

_KEY = re.compile(r"/[^/\0]{1,254}")


class SharedMemory(MemoryRegion):
    """A POSIX shared memory object, mapped: a region that requests can place tensors in.

    Attributes:
        key: What the system calls it: a slash and a name.
        name: What requests call it, once it is registered with a server.
        byte_size: Its size.

    Threading: thread-safe, but for `close`; who writes where at what time is the caller's affair.
    Ownership: an object that was made here is removed at the end of `with`, or by `unlink`; one
    that was attached stays. Arrays that were read from it keep the memory, not the name.
    """

    def __init__(self, key: str, name: str, descriptor: int, *, is_owner: bool) -> None:
        """See `create` and `attach`. Takes over the descriptor's mapping, not the descriptor."""
        self.key = key
        self.name = name or key.removeprefix("/")
        self.byte_size = os.fstat(descriptor).st_size
        self._map: mmap.mmap | None = mmap.mmap(descriptor, self.byte_size)
        self._is_owner = is_owner

    @classmethod
    def create(cls, byte_size: int, *, key: str = "", name: str = "") -> Self:
        """Makes an object of zeros that only this user may open.

        Args:
            byte_size: At least 1.
            key: Its key; "" for one that nobody else has.
            name: What requests call it; "" for the key without its slash.

        Raises:
            SharedMemoryError: The key exists or is none, or there is not so much memory.
        """
        if byte_size < 1:
            raise SharedMemoryError(f"shared memory of {byte_size} bytes: expected at least 1")
        key = key or f"/penstock-{uuid4().hex}"
        descriptor = _open(key, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            # Not truncate: memory that is not there would be a SIGBUS at the first write.
            os.posix_fallocate(descriptor, 0, byte_size)
            return cls(key, name, descriptor, is_owner=True)
        except (OSError, OverflowError, ValueError) as error:
            _remove(key)
            raise _failed(key, f"{byte_size} bytes cannot be had", error) from None
        finally:
            os.close(descriptor)

    @classmethod
    def attach(cls, key: str, *, name: str = "") -> Self:
        """Opens an object that exists, whole. Trust who made it: shrunk, it ends this process.

        Raises:
            SharedMemoryError: There is none of that key, or it may not be opened, or is empty.
        """
        descriptor = _open(key, os.O_RDWR)
        try:
            return cls(key, name, descriptor, is_owner=False)
        except (OSError, ValueError) as error:
            raise _failed(key, "it cannot be mapped", error) from None
        finally:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """The memory itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Lets go of it; what was created is removed."""
        if self._is_owner:
            self.unlink()
        self.close()

    def __repr__(self) -> str:
        """Key, name and size."""
        return f"SharedMemory({self.key!r}, name={self.name!r}, byte_size={self.byte_size})"

    def close(self) -> None:
        """Lets go of the mapping, which ends with the last array on it. Again does nothing."""
        self._map = None

    def unlink(self) -> None:
        """Removes the key from the system; whoever has the memory open keeps it."""
        _remove(self.key)

    @property
    def buffer(self) -> memoryview:
        """Its bytes, for reading and writing: `np.frombuffer(memory.buffer, ...)`.

        Raises:
            SharedMemoryError: It is closed.
        """
        if self._map is None:
            raise SharedMemoryError(f"{self!r} is closed")
        return memoryview(self._map)

    def put(self, value: object, offset: int = 0) -> SharedTensor:
        """Writes an array, or `Tensor`, and gives it as an input for requests.

        Raises:
            TensorError: It has no datatype on the wire, or does not fit behind `offset`.
        """
        wire = encode(value, f"tensor at byte {offset} of {self!r}")
        placed = SharedTensor(self, wire.datatype, wire.shape, offset, len(wire.raw))
        self.buffer[offset : placed.end] = wire.raw
        return placed

    def read(self, room: SharedRoom, datatype: str, shape: Sequence[int], where: str) -> Array:
        """The output that a server put into a room: a read-only view, but for BYTES.

        Raises:
            ProtocolError: Such a tensor would be larger than the room.
        """
        raw = self.buffer[room.offset : room.end].toreadonly()
        try:
            size = leading_bytes(datatype, shape, raw)
        except ValueError:
            size = room.byte_size + 1
        if size > room.byte_size:
            raise room.too_small(datatype, shape, where)
        return decode(WireTensor(datatype, tuple(shape), raw[:size]), where)


def _failed(key: str, what: str, error: Exception) -> SharedMemoryError:
    reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
    return SharedMemoryError(f"shared memory '{key}': {what}: {reason}")


def _open(key: str, flags: int) -> int:
    if not _KEY.fullmatch(key) or key in ("/.", "/.."):
        raise SharedMemoryError(f"'{key}' is no key of shared memory: expected '/' and a name")
    try:
        return os.open(_path(key), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed(key, "it cannot be opened", error) from None


def _remove(key: str) -> None:
    with suppress(FileNotFoundError):  # somebody was quicker
        os.unlink(_path(key))


def _path(key: str) -> str:
    """What `shm_open` opens on Linux."""
    return f"/dev/shm{key}"
