"""Engines built by the real thing: TensorRT-RTX, whose package builds without a GPU."""

from pathlib import Path

import pytest
from tests.support.cli import penstock
from tests.support.engine_wheels import engine_wheel
from tests.support.models import onnx_files
from tests.support.server_process import served

from penstock.engines import verify_engine
from penstock_client import Client

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]


@pytest.fixture(autouse=True)
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, for the processes that are started."""
    monkeypatch.setenv("PYTHONPATH", str(engine_wheel("tensorrt-rtx==1.7.1.116")))


async def test_plan_is_built_of_a_repositorys_model_and_found_again(tmp_path: Path) -> None:
    config = "max_batch_size: 8"
    onnx_files.write_model(tmp_path, "simple", onnx_files.simple(), config=config)
    command = ("build-engine", str(tmp_path / "simple"), "--library", "tensorrt_rtx")
    first = await penstock(*command)
    assert first.code == 0, first.err
    assert "Building engine" in first.err
    sidecar = verify_engine(tmp_path / "simple" / "1" / "model.plan")
    assert [sorted(each) for each in sidecar["recipe"]["profiles"]] == [["INPUT0", "INPUT1"]] * 3
    again = await penstock(*command)
    assert "is current" in again.out
    assert "Building engine" not in again.err
    assert sidecar["key"] in again.out


async def test_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"this is not a model")
    output = str(tmp_path / "model.plan")
    ended = await penstock(
        "build-engine", str(model), "--output", output, "--library", "tensorrt_rtx"
    )
    assert ended.code == 1
    assert "model 'broken'" in ended.err
    assert not (tmp_path / "model.plan").exists()


@pytest.fixture
def no_driver(tmp_path: Path) -> dict[str, str]:
    """The environment of a server that finds none, also on a machine that has one."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "libcuda.so.1").write_text("this is not a library")
    return {"LD_LIBRARY_PATH": str(tmp_path / "driver")}


def load(repository: Path, cache: Path, environment: dict[str, str]) -> tuple[str, list[str]]:
    """Why the model `compiled` is not served in the end, and the log of its server."""
    flags = ["--backend-config", "tensorrt,builder=tensorrt_rtx", "--engine-cache", str(cache)]
    flags += ["--exit-on-error=false", "--strict-readiness=false"]
    with (
        served(repository, *flags, environment=environment) as server,
        Client(server.grpc) as client,
    ):
        index = {each.name: each for each in client.repository_index()}
    assert index["simple"].state == "READY"
    return index["compiled"].reason, server.log


def built(log: list[str]) -> list[str]:
    """What a log tells of builds."""
    return [
        line for line in log if "model 'compiled' version 1: its engine is being built: " in line
    ]


def test_server_builds_a_plan_at_load_and_finds_it_again(
    tmp_path: Path, no_driver: dict[str, str]
) -> None:
    repository, cache = tmp_path / "models", tmp_path / "engines"
    config = 'platform: "tensorrt_plan" max_batch_size: 8'
    onnx_files.write_model(repository, "compiled", onnx_files.simple(), config=config)
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    why = "TensorRT cannot be used: there is no CUDA driver on this machine"
    reason, log = load(repository, cache, no_driver)
    assert why in reason
    assert "built by" not in reason, "the plan is not to blame"
    first, *_, last = built(log)
    assert "Building engine, 0 of " in first
    steps = last.split()
    assert steps[-1] == steps[-3], "it came to its end"
    (plan,) = cache.glob("*/model.plan")
    written, sidecar = plan.stat(), verify_engine(plan)
    assert sidecar["recipe"]["library"] == ["tensorrt_rtx", "1.7.1.116"]
    assert [sorted(each) for each in sidecar["recipe"]["profiles"]] == [["INPUT0", "INPUT1"]] * 3
    reason, log = load(repository, cache, no_driver)
    assert why in reason
    assert built(log) == []
    assert plan.stat().st_mtime_ns == written.st_mtime_ns


def test_onnx_that_the_builder_does_not_take_is_refused_at_load(
    tmp_path: Path, no_driver: dict[str, str]
) -> None:
    repository, cache = tmp_path / "models", tmp_path / "engines"
    config = 'platform: "tensorrt_plan"'
    onnx_files.write_model(repository, "compiled", onnx_files.simple(), config=config)
    (repository / "compiled" / "1" / "model.onnx").write_bytes(b"this is not a model")
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    reason, _ = load(repository, cache, no_driver)
    assert "model 'compiled' version 1: its engine cannot be built: " in reason
    assert str(tmp_path) not in reason
    assert list(cache.glob("*/model.plan")) == []
