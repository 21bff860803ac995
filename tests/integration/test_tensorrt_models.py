"""TensorRT's plans where they cannot run: one reason for it, and a server that serves the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.support.models import onnx_files
from tests.support.run_server import run_server, server_config

from penstock_client import AsyncClient

pytestmark = pytest.mark.any_transport


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe finds in place of a CUDA driver, also on a machine that has one."""
    driver = tmp_path / "driver"
    driver.mkdir()
    (driver / "libcuda.so.1").write_text("this is not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))


@pytest.mark.parametrize(
    "config", ['platform: "tensorrt_plan"', 'backend: "tensorrt"', ""], ids=["old", "new", "file"]
)
async def test_plan_without_a_driver_is_refused_and_others_are_served(
    tmp_path: Path, config: str
) -> None:
    repository = tmp_path / "models"
    plan = repository / "plan" / "1" / "model.plan"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"ftrt")
    if config:
        (repository / "plan" / "config.pbtxt").write_text(config)
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    settings = server_config(repository, exit_on_error=False, strict_readiness=False)
    async with run_server(settings) as server, AsyncClient(server.grpc_address) as client:
        reasons = {each.name: (each.state, each.reason) for each in await client.repository_index()}
        a = np.arange(16, dtype=np.int32).reshape(1, 16)
        result = await client.infer("simple", {"INPUT0": a, "INPUT1": a})
    np.testing.assert_array_equal(result["OUTPUT0"], a * 2)
    state, reason = reasons["plan"]
    assert state == "UNAVAILABLE"
    assert "TensorRT cannot be used: there is no CUDA driver on this machine" in reason
    assert str(tmp_path) not in reason


async def test_onnx_whose_engine_could_not_run_has_none_built_and_others_are_served(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "models"
    config = 'platform: "tensorrt_plan" max_batch_size: 8'
    onnx_files.write_model(repository, "compiled", onnx_files.simple(), config=config)
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    cache = tmp_path / "engines"
    settings = server_config(
        repository, exit_on_error=False, strict_readiness=False, engine_cache=str(cache)
    )
    async with run_server(settings) as server, AsyncClient(server.grpc_address) as client:
        reasons = {each.name: (each.state, each.reason) for each in await client.repository_index()}
    assert reasons["simple"][0] == "READY"
    state, reason = reasons["compiled"]
    assert state == "UNAVAILABLE"
    assert "TensorRT cannot be used: there is no CUDA driver on this machine" in reason
    assert "its engine cannot be built" not in reason, (
        "nor is who serves it told to install a builder"
    )
    assert str(tmp_path) not in reason
    assert list(cache.rglob("*")) == [], "its place went again"


async def test_build_that_takes_longer_than_it_may_is_ended_and_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a builder that needs no driver, and never ends."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorrt_rtx.py").write_text("import signal\nsignal.pause()\n")
    packages = [str(tmp_path / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(packages))
    repository = tmp_path / "models"
    config = 'platform: "tensorrt_plan" max_batch_size: 8'
    onnx_files.write_model(repository, "compiled", onnx_files.simple(), config=config)
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    settings = server_config(
        repository,
        exit_on_error=False,
        strict_readiness=False,
        engine_cache=str(tmp_path / "engines"),
        engine_build_timeout_secs=1.0,
        backend_config=("tensorrt,builder=tensorrt_rtx",),
    )
    async with run_server(settings) as server, AsyncClient(server.grpc_address) as client:
        reasons = {each.name: (each.state, each.reason) for each in await client.repository_index()}
    assert reasons["simple"][0] == "READY"
    assert reasons["compiled"][1].endswith(
        "model 'compiled' version 1: its engine cannot be built: it took longer than 1 s, the most "
        "that a load may (--engine-build-timeout-secs): give it more, or build it before, by "
        "penstock build-engine"
    )
