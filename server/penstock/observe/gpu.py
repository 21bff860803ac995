"""GPUs as their driver sees them, under Triton's names and our own.

That is utilisation, memory, power and energy. A slice of a GPU (MIG) is one of them, beside the GPU
it is of, by its own UUID; it tells its memory, and no utilisation. Read through NVML by the package
nvidia-ml-py, on a thread of its own: a call of it takes milliseconds, and on a device that is
failing it may not end at all. A scrape shows what was last read.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.observe.exposition import Family, Kind

__all__ = ["GpuMonitor", "read_gpus"]

_log = logging.getLogger("penstock.gpu")

_INTERVAL_S = 2.0
"""Triton's, for what it reads of GPUs."""
_STALE_S = 30.0
_STOP_LIMIT_S = 1.0
_DRIVER = Path("/proc/driver/nvidia/version")
_WATTS = 1e-3  # of NVML's milliwatts, and joules of its millijoules

_Reading = tuple[str, str, Kind, str, Callable[[Any, Any], float]]
"""Triton's name, ours, what it is, and how it is read."""
_READINGS: tuple[_Reading, ...] = (
    (
        "nv_gpu_utilization",
        "penstock_gpu_utilization_ratio",
        "gauge",
        "Share of the time in which the GPU was busy, 0 to 1",
        lambda nvml, device: nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
    ),
    (
        "nv_gpu_memory_total_bytes",
        "penstock_gpu_memory_bytes",
        "gauge",
        "Memory of the GPU",
        lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).total,
    ),
    (
        "nv_gpu_memory_used_bytes",
        "penstock_gpu_memory_used_bytes",
        "gauge",
        "Memory of the GPU that is taken, by whomever",
        lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).used,
    ),
    (
        "nv_gpu_power_usage",
        "penstock_gpu_power_watts",
        "gauge",
        "Power that the GPU draws, in watts",
        lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device) * _WATTS,
    ),
    (
        "nv_gpu_power_limit",
        "penstock_gpu_power_limit_watts",
        "gauge",
        "Power that the GPU may draw, in watts",
        lambda nvml, device: nvml.nvmlDeviceGetPowerManagementLimit(device) * _WATTS,
    ),
    (
        "nv_energy_consumption",
        "penstock_gpu_energy_joules_total",
        "counter",
        "Energy that the GPU has taken since its driver was loaded, in joules",
        lambda nvml, device: nvml.nvmlDeviceGetTotalEnergyConsumption(device) * _WATTS,
    ),
)


class GpuMonitor:
    """Reads all GPUs again and again.

    Threading: `families` on any thread; the rest on one.
    Lifecycle: start -> stop. Without GPUs, a driver or the package its thread ends at once, and
    there are no families.
    """

    def __init__(self, interval_s: float = _INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._families: tuple[Family, ...] = ()
        self._read_s = 0.0
        # A daemon: NVML may never come back, and the process ends all the same.
        self._thread = threading.Thread(target=self._run, name="gpu-monitor", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self) -> None:
        """Blocking, for a second at most: ends it, unless NVML does not come back."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_LIMIT_S)

    def families(self) -> tuple[Family, ...]:
        """What was last read: a sample per GPU that tells it, by its UUID.

        None where that is long ago: a GPU that fails may never let NVML come back.
        """
        return self._families if time.monotonic() - self._read_s < _STALE_S else ()

    def _run(self) -> None:
        nvml = _open()
        if nvml is None:
            return
        try:
            gpus = dict(_gpus(nvml))
            if gpus:
                _log.info("GPUs: %s", ", ".join([*gpus, *dict(_slices(nvml, gpus))]))
            while gpus:
                # Slices come and go, and a handle of one that went may be another one's.
                devices = gpus | dict(_slices(nvml, gpus))
                self._families = tuple(read_gpus(nvml, devices))
                self._read_s = time.monotonic()
                if self._stopping.wait(self._interval_s):
                    break
        except nvml.NVMLError as error:
            _log.warning("GPUs are not read any more: %s", error)
            self._families = ()
        finally:
            nvml.nvmlShutdown()


def _open() -> Any | None:
    """The package, with NVML started; None where there is none, or nothing to read."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        if _DRIVER.exists():
            _log.warning(
                "GPUs are not in the metrics: the package nvidia-ml-py is not installed "
                "(pip install nvidia-ml-py)"
            )
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        level = logging.WARNING if _DRIVER.exists() else logging.DEBUG
        _log.log(level, "GPUs are not in the metrics: %s", error)
        return None
    return nvml


def _gpus(nvml: Any) -> Iterator[tuple[str, Any]]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            yield _uuid(nvml, device), device
        except nvml.NVMLError as error:  # one that failed, or is not this process's, is counted too
            _log.warning("GPU %d is not in the metrics: %s", index, error)


def _slices(nvml: Any, gpus: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for uuid, gpu in gpus.items():
        for index in range(_most_slices(nvml, uuid, gpu)):
            try:
                device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
                yield _uuid(nvml, device), device
            except nvml.NVMLError as error:  # there may be fewer than there is room for
                _log.debug("slice %d of %s: %s", index, uuid, error)


def _most_slices(nvml: Any, uuid: str, gpu: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu))
    except nvml.NVMLError as error:  # a driver or GPU that knows no slices
        _log.debug("slices of %s: %s", uuid, error)
        return 0


def _uuid(nvml: Any, device: Any) -> str:
    uuid = nvml.nvmlDeviceGetUUID(device)
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def read_gpus(nvml: Any, devices: Mapping[str, Any]) -> Iterator[Family]:
    """Two families for each thing that at least one GPU tells; slices of one do not tell all.

    Args:
        nvml: the package pynvml, with NVML started.
        devices: its handles, by UUID.
    """
    for tritons, ours, kind, text, reading in _READINGS:
        values: dict[str, float] = {}
        for uuid, device in devices.items():
            try:
                values[uuid] = reading(nvml, device)
            except nvml.NVMLError as error:
                _log.debug("%s of %s: %s", ours, uuid, error)
        for name in (tritons, ours) if values else ():
            family = Family(name, text, kind)
            for uuid, value in values.items():
                family.add({"gpu_uuid": uuid}, value)
            yield family
