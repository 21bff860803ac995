"""The device that an engine is built for, as its driver describes it. TensorRT is not asked.

TensorRT's builder needs a driver and crashes, or hangs, without one; so this comes before it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from penstock.engines.kept import EngineError
from penstock.engines.key import Target

_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_TEXT_BYTES = 256


def find_target() -> Target:
    """The first device that is seen. No context is made on it, and no memory of it taken.

    Raises:
        EngineError: there is no driver that can be asked, or no device.
    """
    try:
        return _ask()
    except AttributeError as error:  # of ctypes, whose text may have a path
        lacking = str(error).rpartition(" ")[2]
        raise EngineError(f"the NVIDIA driver lacks {lacking}: it cannot be asked") from error


def _ask() -> Target:
    cuda = _open("libcuda.so.1", "there is no CUDA driver on this machine")
    _check(cuda.cuInit(0), "the CUDA driver does not start, or finds no device")
    handle = ctypes.c_int()
    _check(cuda.cuDeviceGet(ctypes.byref(handle), 0), "there is no CUDA device 0")
    name = ctypes.create_string_buffer(_TEXT_BYTES)
    _check(cuda.cuDeviceGetName(name, _TEXT_BYTES, handle), "CUDA device 0 has no name")

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        failure = cuda.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
        _check(failure, "CUDA device 0 does not describe itself")
        return value.value

    return Target(
        compute_capability=(attribute(_MAJOR), attribute(_MINOR)),
        multiprocessors=attribute(_MULTIPROCESSORS),
        device=name.value.decode(errors="replace"),
        driver_major=_driver_major(),
    )


def _driver_major() -> int:
    nvml = _open("libnvidia-ml.so.1", "the NVIDIA driver's libnvidia-ml.so.1 is missing")
    version = ctypes.create_string_buffer(_TEXT_BYTES)
    _check(nvml.nvmlInit_v2(), "the NVIDIA driver's NVML does not start")
    try:
        failure = nvml.nvmlSystemGetDriverVersion(version, _TEXT_BYTES)
        _check(failure, "the NVIDIA driver does not tell its version")
    finally:
        nvml.nvmlShutdown()
    major = version.value.decode(errors="replace").partition(".")[0]
    if not major.isdigit():
        raise EngineError(f"the NVIDIA driver's version: expected a number, got '{major}'")
    return int(major)


def _open(library: str, why: str) -> Any:
    try:
        return ctypes.CDLL(library)
    except OSError as error:
        raise EngineError(f"{why}: an engine is built for the device that it runs on") from error


def _check(failure: int, what: str) -> None:
    if failure != 0:
        raise EngineError(f"{what}: error {failure}")
