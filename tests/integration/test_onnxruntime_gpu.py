"""Models of ONNX Runtime on a GPU where that cannot be: one reason, and a server that serves on.

What the reason is depends on the package: onnxruntime has no provider for GPUs, onnxruntime-gpu has
them and finds no driver.
"""

import ctypes
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from tests.support.models import onnx_files
from tests.support.run_server import run_server, serve_process, server_config

from penstock_client import AsyncClient

pytestmark = pytest.mark.any_transport

CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
GPU = "instance_group { kind: KIND_GPU }"
TENSORRT = """optimization { execution_accelerators { gpu_execution_accelerator {
    name: "tensorrt" parameters { key: "%s" value: "%s" } } } }"""


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


without_driver = pytest.mark.skipif(has_driver(), reason="there is a CUDA driver on this machine")


async def reason_of(tmp_path: Path, config: str, **settings: object) -> str:
    """Why a model with that configuration is not served, on a server that serves another one."""
    repository = tmp_path / "models"
    onnx_files.write_model(repository, "fast", onnx_files.simple(), config=config)
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    chosen = server_config(repository, exit_on_error=False, strict_readiness=False, **settings)
    async with run_server(chosen) as server, AsyncClient(server.grpc_address) as client:
        reasons = {each.name: (each.state, each.reason) for each in await client.repository_index()}
        a = np.arange(16, dtype=np.int32).reshape(1, 16)
        result = await client.infer("simple", {"INPUT0": a, "INPUT1": a})
    np.testing.assert_array_equal(result["OUTPUT0"], a * 2)
    state, reason = reasons["fast"]
    assert state == "UNAVAILABLE"
    assert str(tmp_path) not in reason
    return str(reason)


@without_driver
async def test_gpu_without_what_it_needs_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    reason = await reason_of(tmp_path, GPU)
    assert "model 'fast' version 1: KIND_GPU needs" in reason
    if "CUDAExecutionProvider" in reason:
        assert "has AzureExecutionProvider, CPUExecutionProvider" in reason
        assert "install the package onnxruntime-gpu in place of onnxruntime" in reason
    else:
        assert "there is no CUDA driver on this machine" in reason


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        (
            TENSORRT % ("precision_mode", "FP16"),
            "gpu_execution_accelerator: needs an instance_group of KIND_GPU",
        ),
        (
            GPU + TENSORRT % ("precision_mode", "FP8"),
            "parameter 'tensorrt.precision_mode' of the onnxruntime backend: expected FP32, FP16, "
            "BF16 or INT8, got 'FP8'",
        ),
        (
            GPU + TENSORRT % ("trt_engine_cache_path", "/tmp"),
            "parameter 'tensorrt.trt_engine_cache_path' of the onnxruntime backend is not "
            "supported: the server keeps engines in its --engine-cache",
        ),
        (
            'parameters { key: "gpu_mem_limit" value { string_value: "1" } }',
            "parameter 'gpu_mem_limit' of the onnxruntime backend is for GPUs: it needs an "
            "instance_group of KIND_GPU",
        ),
        (
            GPU + 'parameters { key: "cuda_graphs" value { string_value: "1" } }',
            "parameter 'cuda_graphs' of the onnxruntime backend is not supported",
        ),
    ],
)
async def test_setting_of_a_gpu_that_cannot_be_is_refused_by_name(
    tmp_path: Path, config: str, fragment: str
) -> None:
    assert fragment in await reason_of(tmp_path, config)


def lay_out_both_packages(directory: Path) -> str:
    """As pip leaves both: the package's library, an older one, a provider. The library's name."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    library = next(Path(spec.submodule_search_locations[0]).glob("capi/libonnxruntime.so.1.*"))
    if library.with_name(CUDA_PROVIDER).exists():
        pytest.skip("the package here is onnxruntime-gpu")
    directory.mkdir()
    (directory / library.name).symlink_to(library)
    for each in ("libonnxruntime.so.1.9.0", CUDA_PROVIDER):
        (directory / each).touch()
    return library.name


async def reason_in_a_process(repository: Path, library: str) -> tuple[str, list[str]]:
    """Why its one model is not served with that library, and the log: a process holds only one."""
    config = f"onnxruntime,library={library}"
    flags = ("--backend-config", config, "--exit-on-error=false", "--strict-readiness=false")
    async with serve_process(repository, *flags) as server:
        async with AsyncClient(server.addresses["gRPC"]) as client:
            (entry,) = await client.repository_index()
    return entry.reason, server.lines


async def test_both_packages_in_one_directory_are_told_and_the_latest_is_opened(
    tmp_path: Path,
) -> None:
    library = lay_out_both_packages(tmp_path / "capi")
    repository = tmp_path / "models"
    onnx_files.write_model(repository, "fast", onnx_files.simple(), config=GPU)
    reason, log = await reason_in_a_process(repository, str(tmp_path / "capi"))
    assert (
        f"({library} was opened, beside libonnxruntime.so.1.9.0 and {CUDA_PROVIDER}): pip "
        "uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu" in reason
    )
    assert str(tmp_path) not in reason
    told = [line for line in log if f"opened {library}, the latest of" in line]
    assert len(told) == 1, log


@without_driver
@pytest.mark.slow
@pytest.mark.skipif(
    "PENSTOCK_TEST_ORT_GPU" not in os.environ,
    reason="PENSTOCK_TEST_ORT_GPU names no directory with onnxruntime-gpu's libonnxruntime.so",
)
@pytest.mark.parametrize("accelerator", ["", TENSORRT % ("precision_mode", "FP16")])
async def test_gpu_package_without_a_driver_is_refused_with_that(
    tmp_path: Path, accelerator: str
) -> None:
    onnx_files.write_model(tmp_path, "fast", onnx_files.simple(), config=GPU + accelerator)
    reason, _ = await reason_in_a_process(tmp_path, os.environ["PENSTOCK_TEST_ORT_GPU"])
    assert (
        "model 'fast' version 1: KIND_GPU needs a GPU: there is no CUDA driver on this machine"
        in reason
    )
