"""GPUs in the metrics, read through a stand-in for nvidia-ml-py."""

import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.observe.exposition import render
from penstock.observe.gpu import GpuMonitor
from penstock.observe.metrics import Metrics

LIMIT_S = 30.0
Device = int | tuple[int, int]
ENGINE: dict[str, Any] = {"accepted": 0, "inflight": 0, "completed": {}, "refused": {}}


class FakeNvmlError(Exception):
    """As NVMLError."""


@dataclass
class FakeNvml:
    """Two GPUs; the second knows slices, has room for four, and two, which come and go.

    A handle of a slice is (GPU, place).
    """

    init_error: Exception | None = None
    lost: bool = False
    count: int = 2
    failed: frozenset[int] = frozenset()
    rounds: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    was_shut_down: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event | None = None  # a read does not come back before it is set
    used: int = 5
    slices: dict[int, str | bytes] = field(default_factory=lambda: {0: "MIG-0", 2: b"MIG-2"})
    NVMLError: type[Exception] = FakeNvmlError

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error is not None:
            raise self.init_error

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.was_shut_down.set()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.lost:
            raise FakeNvmlError("GPU is lost")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.failed:
            raise FakeNvmlError("Unknown Error")
        return index

    def nvmlDeviceGetMaxMigDeviceCount(self, device: int) -> int:  # noqa: N802
        if device == 0:
            raise FakeNvmlError("Not Supported")
        return 4

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: int, index: int) -> Device:  # noqa: N802
        assert device == 1
        if index not in self.slices:
            raise FakeNvmlError("Not Found")
        return device, index

    def nvmlDeviceGetUUID(self, device: Device) -> str | bytes:  # noqa: N802
        if isinstance(device, tuple):
            return self.slices[device[1]]
        return "GPU-0" if device == 0 else b"GPU-1"

    def nvmlDeviceGetUtilizationRates(self, device: Device) -> object:  # noqa: N802
        if device != 0:  # none of a GPU that is cut in slices either
            raise FakeNvmlError("Not Supported")
        return SimpleNamespace(gpu=25)

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> object:  # noqa: N802
        if isinstance(device, tuple):
            return SimpleNamespace(total=10 << 30, used=device[1])
        return SimpleNamespace(total=80 << 30, used=self.used + device)

    def nvmlDeviceGetPowerUsage(self, device: Device) -> int:  # noqa: N802
        if isinstance(device, tuple):
            raise FakeNvmlError("Not Supported")
        return 350_500

    def nvmlDeviceGetPowerManagementLimit(self, device: Device) -> int:  # noqa: N802
        if isinstance(device, tuple):
            raise FakeNvmlError("Not Supported")
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Device) -> int:  # noqa: N802
        if self.hold is not None:
            self.hold.wait(LIMIT_S)
        if device == 0:  # once a round
            self.rounds.release()
        raise FakeNvmlError("Not Supported")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.fixture
def monitor(nvml: FakeNvml) -> Iterator[GpuMonitor]:
    monitor = GpuMonitor(interval_s=0.001)
    yield monitor
    monitor.stop()


def read_twice(nvml: FakeNvml) -> None:
    """Until what was read before this call is there to be shown."""
    while nvml.rounds.acquire(blocking=False):
        pass
    for _ in range(2):
        assert nvml.rounds.acquire(timeout=LIMIT_S)


def test_gpus_are_shown_under_tritons_names(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    monitor.start()
    read_twice(nvml)
    lines = render(monitor.families()).decode().splitlines()
    assert 'nv_gpu_utilization{gpu_uuid="GPU-0"} 0.25' in lines
    assert f'nv_gpu_memory_total_bytes{{gpu_uuid="GPU-1"}} {80 << 30}' in lines
    assert 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 6' in lines
    assert 'nv_gpu_power_usage{gpu_uuid="GPU-0"} 350.5' in lines
    assert 'nv_gpu_power_limit{gpu_uuid="GPU-0"} 700' in "\n".join(lines)
    assert not any("energy" in line for line in lines)  # nobody tells it


def test_gpu_that_does_not_open_leaves_the_others(
    nvml: FakeNvml, monitor: GpuMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    nvml.failed = frozenset({1})
    monitor.start()
    read_twice(nvml)
    lines = render(monitor.families()).decode()
    assert 'penstock_gpu_utilization_ratio{gpu_uuid="GPU-0"} 0.25' in lines
    assert "GPU-1" not in lines
    assert "GPU 1 is not in the metrics: Unknown Error" in caplog.text


def test_gpus_are_shown_under_our_names_too(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    monitor.start()
    read_twice(nvml)
    lines = render(monitor.families()).decode().splitlines()
    assert 'penstock_gpu_utilization_ratio{gpu_uuid="GPU-0"} 0.25' in lines
    assert f'penstock_gpu_memory_bytes{{gpu_uuid="GPU-0"}} {80 << 30}' in lines
    assert 'penstock_gpu_memory_used_bytes{gpu_uuid="GPU-0"} 5' in lines
    assert 'penstock_gpu_power_watts{gpu_uuid="GPU-0"} 350.5' in lines
    assert 'penstock_gpu_power_limit_watts{gpu_uuid="GPU-0"} 700' in lines


def test_slices_tell_their_memory_and_nothing_else(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    monitor.start()
    read_twice(nvml)
    lines = render(monitor.families()).decode().splitlines()
    assert [line for line in lines if line.startswith("nv_") and "MIG-" in line] == [
        f'nv_gpu_memory_total_bytes{{gpu_uuid="MIG-0"}} {10 << 30}',
        f'nv_gpu_memory_total_bytes{{gpu_uuid="MIG-2"}} {10 << 30}',
        'nv_gpu_memory_used_bytes{gpu_uuid="MIG-0"} 0',
        'nv_gpu_memory_used_bytes{gpu_uuid="MIG-2"} 2',
    ]


def test_slices_are_looked_for_again(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    monitor.start()
    read_twice(nvml)
    nvml.slices = {3: "MIG-3"}
    for _ in range(2):
        read_twice(nvml)
    text = render(monitor.families())
    assert b'nv_gpu_memory_used_bytes{gpu_uuid="MIG-3"} 3' in text
    assert b"MIG-2" not in text


def test_metrics_show_what_was_read(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    metrics = Metrics(
        versions=list, engine=lambda: ENGINE, is_ready=lambda: True, gpus=monitor.families
    )
    assert b"nv_gpu" not in metrics.render()[1]
    monitor.start()
    read_twice(nvml)
    assert b'nv_gpu_utilization{gpu_uuid="GPU-0"} 0.25' in metrics.render()[1]


def test_gpus_are_read_again(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    monitor.start()
    read_twice(nvml)
    nvml.used = 7
    for _ in range(2):
        read_twice(nvml)
    assert b'nv_gpu_memory_used_bytes{gpu_uuid="GPU-0"} 7' in render(monitor.families())


def test_what_was_read_long_ago_is_not_shown(
    nvml: FakeNvml, monitor: GpuMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a driver that does not come back."""
    monitor.start()
    read_twice(nvml)
    nvml.hold = threading.Event()
    assert monitor.families()
    monkeypatch.setattr("penstock.observe.gpu._STALE_S", 0.0)
    assert monitor.families() == ()
    nvml.hold.set()


def test_stop_ends_the_thread(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    monitor.start()
    monitor.stop()
    assert nvml.was_shut_down.wait(LIMIT_S)


def test_stop_does_not_wait_for_a_driver_that_hangs(nvml: FakeNvml, monitor: GpuMonitor) -> None:
    nvml.hold = threading.Event()
    monitor.start()
    monitor.stop()
    assert not nvml.was_shut_down.is_set()
    nvml.hold.set()


def test_stop_without_a_start_is_nothing() -> None:
    monitor = GpuMonitor()
    monitor.stop()
    assert monitor.families() == ()


@pytest.mark.parametrize(
    "trouble",
    [{"init_error": FakeNvmlError("Driver Not Loaded")}, {"lost": True}, {"count": 0}],
    ids=["no driver", "lost", "no GPU"],
)
def test_without_gpus_there_are_no_families(
    nvml: FakeNvml, monitor: GpuMonitor, trouble: dict[str, object]
) -> None:
    for name, value in trouble.items():
        setattr(nvml, name, value)
    monitor.start()
    assert nvml.init_error is not None or nvml.was_shut_down.wait(LIMIT_S)
    monitor.stop()
    assert monitor.families() == ()
    assert nvml.was_shut_down.is_set() == (nvml.init_error is None)


def test_without_the_package_there_are_no_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monitor = GpuMonitor()
    monitor.start()
    monitor.stop()
    assert monitor.families() == ()


@pytest.mark.parametrize("has_driver", [True, False])
def test_missing_package_is_told_where_there_is_a_driver(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has_driver: bool,
) -> None:
    driver = tmp_path / "version"
    if has_driver:
        driver.write_text("NVRM version: 580")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("penstock.observe.gpu._DRIVER", driver)
    monitor = GpuMonitor()
    monitor.start()
    monitor.stop()
    told = (
        "GPUs are not in the metrics: the package nvidia-ml-py is not installed "
        "(pip install nvidia-ml-py)"
    )
    expected = [("penstock.gpu", logging.WARNING, told)] if has_driver else []
    assert caplog.record_tuples == expected
    assert monitor.families() == ()
