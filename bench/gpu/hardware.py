"""Which GPU there is, asked of its driver: no toolkit and no package is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_NAME_BYTES = 256
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute


class NoGpuError(Exception):
    """There is none, or none that can be used; the message is the one reason."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU of this process.

    Attributes:
        name: as its driver calls it.
        capability: compute capability, for instance "9.0".
        multiprocessors: of the GPU, or of the slice of one.
        memory_bytes: of the device.
        driver: the CUDA version that the driver knows, for instance "13.0".
    """

    name: str
    capability: str
    multiprocessors: int
    memory_bytes: int
    driver: str

    @property
    def architecture(self) -> str:
        """As CMake and nvcc have it: "90-real"."""
        return f"{self.capability.replace('.', '')}-real"


def find_gpu(open_library: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """The first GPU.

    Raises:
        NoGpuError: There is no driver, it does not start, or it knows no device.
    """
    try:
        cuda = open_library("libcuda.so.1")
    except OSError:
        raise NoGpuError("there is no CUDA driver on this machine") from None
    if failure := cuda.cuInit(0):
        raise NoGpuError(f"the CUDA driver does not start, or finds no device (error {failure})")
    device, memory, version = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(cuda.cuDeviceGet(ctypes.byref(device), 0), "there is no CUDA device 0")
    _call(cuda.cuDeviceGetName(name, _NAME_BYTES, device), "the device has no name")
    _call(cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "the device has no memory")
    _call(cuda.cuDriverGetVersion(ctypes.byref(version)), "the driver has no version")
    major, minor = _attribute(cuda, _MAJOR, device), _attribute(cuda, _MINOR, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{major}.{minor}",
        multiprocessors=_attribute(cuda, _MULTIPROCESSORS, device),
        memory_bytes=memory.value,
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _attribute(cuda: Any, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _call(
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device),
        "the device does not describe itself",
    )
    return value.value


def _call(failure: int, why: str) -> None:
    if failure:
        raise NoGpuError(f"{why} (error {failure})")
