"""bench/gpu's end to end: the same parts that run on a GPU, on fake ones and with a fake CuPy.

The plug-in is of the same source; its kernel's body is run by the host.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from gpu import row_parts
from gpu.row_parts import Settings
from gpu.table import Row
from tests.support.fake_cupy import FakeCupy
from tests.support.fixture_models import FIXTURE_BACKENDS, WITH_FAKE_GPUS

pytestmark = pytest.mark.any_transport

SETTINGS = Settings(FIXTURE_BACKENDS, ("driver",), 0.2, shape=(4, 256), environment=WITH_FAKE_GPUS)


def figures(found: list[Row | str]) -> dict[str, float]:
    return {each.what: each.median for each in found if isinstance(each, Row)}


class FakeTensor(np.ndarray[Any, Any]):
    """As one of torch's on a GPU, to who asks by DLPack."""

    @property
    def _array(self) -> Any:
        return self.view(np.ndarray)

    def __dlpack_device__(self) -> Any:
        return 2, 0

    def __dlpack__(self, **_: Any) -> None:  # type: ignore[override]
        """Nothing: the fake CuPy takes the array."""

    def cuda(self) -> Self:
        return self


def fake_torch() -> Any:
    def rand(shape: tuple[int, int], device: str) -> FakeTensor:
        assert device == "cuda"
        return np.random.default_rng(7).random(shape, np.float32).view(FakeTensor)

    return SimpleNamespace(
        __version__="fake",
        cuda=SimpleNamespace(is_available=lambda: True),
        rand=rand,
        from_numpy=lambda array: array.view(FakeTensor),
        from_dlpack=np.asarray,
    )


PYNVML = """
from types import SimpleNamespace
class NVMLError(Exception): pass
def fail(*_): raise NVMLError("Not Supported")
nvmlInit = nvmlShutdown = lambda: None
nvmlDeviceGetCount = lambda: 1
nvmlDeviceGetHandleByIndex = lambda index: index
nvmlDeviceGetUUID = lambda device: "GPU-0"
nvmlDeviceGetMemoryInfo = lambda device: SimpleNamespace(total=80, used=5)
nvmlDeviceGetMaxMigDeviceCount = nvmlDeviceGetUtilizationRates = nvmlDeviceGetPowerUsage = fail
nvmlDeviceGetPowerManagementLimit = nvmlDeviceGetTotalEnergyConsumption = fail
"""


def test_requests_are_answered_rightly_wherever_tensors_lie(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    (tmp_path / "pynvml.py").write_text(PYNVML)
    monkeypatch.syspath_prepend(tmp_path)
    found = list(row_parts.serve(SETTINGS))
    assert "torch fake: a tensor on the GPU was answered rightly, there" in found
    rates = figures(found)
    for where in ("messages", "system shared memory", "the GPU's memory"):
        assert rates[f"driver: 4 rows of 1,024 bytes in {where}"] > 0
    assert rates["driver: penstock_graph_runs_total"] > 0
    assert rates["driver: penstock_model_device_busy_seconds_total"] > 0
    assert rates['driver: penstock_gpu_memory_used_bytes{gpu_uuid="GPU-0"}'] == 5


def test_without_cupy_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    found = list(row_parts.serve(SETTINGS))
    assert len(figures(found)) == 5
    (note,) = (each for each in found if isinstance(each, str))
    assert note.startswith(
        "driver: tensors in the GPU's memory are left out: memory of a GPU needs"
    )


@pytest.mark.parametrize("api", ["runtime", "driver"])
def test_trap_under_load_is_answered_and_the_device_served_again(api: str) -> None:
    settings = Settings(
        FIXTURE_BACKENDS, (api,), environment=WITH_FAKE_GPUS, answered_within_s=60.0
    )
    found = list(row_parts.fault(settings))
    assert figures(found)[f"{api}: requests in flight then"] >= 1
    assert "the worker of GPU 0 lost the device" in str(found[-1])


def test_model_that_asks_for_too_much_is_refused_and_the_others_go_on() -> None:
    found = list(row_parts.memory(SETTINGS))
    assert figures(found)["driver: right meanwhile"] > 0
    assert "greedy" in str(found[-1])


async def program(part: str, plugins: Path) -> tuple[int | None, list[str]]:
    """Its status and what it printed, run as the steps run it."""
    command = ["-m", "bench.gpu.end_to_end", part, "--plugins", str(plugins), "--apis", "driver"]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, *command],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **WITH_FAKE_GPUS},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode().splitlines()


async def test_program_prints_figures_and_notes() -> None:
    status, printed = await program("memory", FIXTURE_BACKENDS)
    assert status == 0
    assert json.loads(printed[0])["what"] == "driver: right meanwhile"
    assert printed[1].startswith("- driver: RESOURCE_EXHAUSTED: failed to load 'greedy'")


async def test_program_whose_server_does_not_start_says_why(tmp_path: Path) -> None:
    status, printed = await program("fault", tmp_path)
    assert status == 1
    assert "there is no backend 'fixture'" in printed[-1]
