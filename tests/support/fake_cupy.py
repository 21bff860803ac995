"""A stand-in for the package cupy: arrays are numpy's, a GPU's memory is POSIX shared memory.

What it exports is the key of that object: a server with the fake CUDA module opens it.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np

HANDLE_BYTES = 64


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError."""


class OnDevice:
    """What lies on the GPU and is no CuPy array: it has `__cuda_array_interface__` alone."""

    def __init__(self, array: Any) -> None:
        self._array = array  # keeps the memory
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
        }


class InDlpack:
    """Likewise, with DLPack alone, on GPU `number`. `refuses`: what it says to who asks for it."""

    def __init__(
        self, array: Any, device: int = 2, number: int = 0, refuses: Exception | None = None
    ) -> None:
        self._array = array
        self._device = device
        self._number = number
        self._refuses = refuses

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, self._number

    def __dlpack__(self, **_: Any) -> Any:
        if self._refuses is not None:
            raise self._refuses
        return self._array.__dlpack__()


class LikeTorch(InDlpack):
    """A tensor as torch's are on a GPU: both interfaces, and an `__array__` that refuses."""

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")


class FakeRuntime:
    """cupy.cuda.runtime with `devices` GPUs of `free_bytes` each."""

    CUDARuntimeError = CUDARuntimeError

    def __init__(self, devices: int, free_bytes: int) -> None:
        self._devices = devices
        self._free_bytes = free_bytes
        self.blocks: dict[int, tuple[str, mmap.mmap]] = {}
        self.sizes: list[int] = []

    def getDeviceCount(self) -> int:  # noqa: N802
        if self._devices < 0:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return self._devices

    def malloc(self, size: int) -> int:
        if size > self._free_bytes:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        path = f"/dev/shm/penstock-fake-gpu-{uuid4().hex[:16]}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.truncate(descriptor, size)
        mapped = mmap.mmap(descriptor, size)
        os.close(descriptor)
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        self.blocks[pointer] = (path, mapped)
        self.sizes.append(size)
        ctypes.memset(pointer, 0xA5, size)
        return pointer

    def memset(self, pointer: int, value: int, size: int) -> None:
        ctypes.memset(pointer, value, size)

    def free(self, pointer: int) -> None:
        os.unlink(self.blocks.pop(pointer)[0])

    def ipcGetMemHandle(self, pointer: int) -> bytes:  # noqa: N802
        key = self.blocks[pointer][0].removeprefix("/dev/shm")
        return key.encode().ljust(HANDLE_BYTES, b"\0")


class UnownedMemory:
    """As cupy.cuda.UnownedMemory."""

    def __init__(self, pointer: int, size: int, owner: object, device: int) -> None:
        self.pointer = pointer
        self.size = size
        self.owner = owner
        self.device = device


class FakeArray(np.ndarray[Any, Any]):
    """numpy's, with what of CuPy's is used and numpy has not."""

    memory: UnownedMemory | None = None
    number = 0

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=self.number)

    def set(self, host: Any) -> None:
        self[...] = host


class FakeStream:
    """Counts who waits for it."""

    def __init__(self) -> None:
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


class FakeCupy(ModuleType):
    """The module."""

    def __init__(self, devices: int = 1, free_bytes: int = 1 << 30) -> None:
        super().__init__("cupy")
        self.stream = FakeStream()
        self.moves: list[tuple[int, int]] = []  # copies from one GPU to another
        self.current = 0
        self.cuda = SimpleNamespace()
        self.cuda.runtime = FakeRuntime(devices, free_bytes)
        self.cuda.UnownedMemory = UnownedMemory
        self.cuda.MemoryPointer = lambda memory, offset: (memory, offset)
        self.cuda.get_current_stream = lambda: self.stream
        self.cuda.Device = self._device

    def _device(self, number: int) -> Any:
        if number >= self.cuda.runtime.getDeviceCount():
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        return self._entered(number)

    @contextmanager
    def _entered(self, number: int) -> Iterator[None]:
        before, self.current = self.current, number
        yield
        self.current = before

    def ndarray(self, shape: Any, dtype: Any, memptr: Any) -> FakeArray:
        memory, offset = memptr
        raw = (ctypes.c_char * (memory.size - offset)).from_address(memory.pointer + offset)
        array = np.frombuffer(raw, np.dtype(dtype)).reshape(shape).view(FakeArray)
        array.memory = memory
        return array

    def asarray(self, value: Any) -> FakeArray:
        if isinstance(value, FakeArray):
            if value.number != self.current:
                self.moves.append((value.number, self.current))
            return self._on(value.copy(), self.current)
        described = value.__cuda_array_interface__
        array = np.lib.stride_tricks.as_strided(
            np.asarray(value._array), described["shape"], described["strides"]
        )
        return self._on(array, 0)

    def from_dlpack(self, value: Any) -> FakeArray:
        value.__dlpack__(stream=self.stream)
        return self._on(np.asarray(value._array), value.__dlpack_device__()[1])

    @staticmethod
    def _on(array: Any, number: int) -> FakeArray:
        made: FakeArray = array.view(FakeArray)
        made.number = number
        return made

    float32 = np.float32

    def zeros(self, shape: Any, dtype: Any) -> OnDevice:
        return OnDevice(np.zeros(shape, dtype))

    def asnumpy(self, array: Any) -> Any:
        return np.array(array)
