"""What the manager's threads leave behind: loads that are given up, versions that are not used."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model

from penstock.errors import InvalidArgumentError
from penstock.repository import ModelManager, RepositorySettings
from penstock.repository.engine import EngineVersion, OpenedModel, ServingSpec


def manager_of(engine: FakeEngine, path: Path) -> ModelManager:
    return ModelManager(engine, RepositorySettings(paths=(path,), control_mode="explicit"))


async def entered(engine: FakeEngine, step: str, model: str) -> None:
    assert await asyncio.to_thread(engine.entered[step, model].wait, 30)


async def test_close_tells_of_a_thread_that_a_cancelled_start_left_in_a_load(
    tmp_path: Path,
) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    gate = engine.hold("open", "a")
    manager = ModelManager(engine, RepositorySettings(paths=(tmp_path,)))
    start = asyncio.create_task(manager.start())
    await entered(engine, "open", "a")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert await manager.close(0) is False
    gate.set()
    assert await manager.close(30) is True


class ForgetfulEngine(FakeEngine):
    """Keeps no version, and writes down on which thread each is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.freed_on: list[str] = []

    def create_version(self, model: OpenedModel, spec: ServingSpec) -> EngineVersion:
        version = super().create_version(model, spec)
        self.created.clear()
        weakref.finalize(version, lambda: self.freed_on.append(threading.current_thread().name))
        return version


async def test_version_of_a_failed_load_is_freed_at_once_off_the_event_loop(
    tmp_path: Path,
) -> None:
    add_model(tmp_path, "a", versions=(1, 2), config="version_policy { all {} }")
    (tmp_path / "a" / "2" / "model.onnx").write_text("not json")
    engine = ForgetfulEngine()
    manager = manager_of(engine, tmp_path)
    await assert_failed_load_frees_its_version(manager, engine, "corrupt")


async def test_version_whose_warm_up_fails_is_freed_at_once_off_the_event_loop(
    tmp_path: Path,
) -> None:
    config = """model_warmup [{ name: "w" inputs {
        key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }]"""
    add_model(tmp_path, "a", config=config)
    engine = ForgetfulEngine()
    engine.fail["warm_up", "a"] = InvalidArgumentError("too cold")
    await assert_failed_load_frees_its_version(manager_of(engine, tmp_path), engine, "too cold")


async def assert_failed_load_frees_its_version(
    manager: ModelManager, engine: ForgetfulEngine, reason: str
) -> None:
    gc.disable()  # weights must not wait for the collector
    try:
        with pytest.raises(InvalidArgumentError, match=reason):
            await manager.load("a")
        (thread,) = engine.freed_on
        assert thread.startswith("load")
    finally:
        gc.enable()
        await manager.close(30)
