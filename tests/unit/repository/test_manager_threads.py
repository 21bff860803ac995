"""What the manager's threads leave behind: loads that are given up, versions that are not used."""

import asyncio
from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model

from penstock.repository import ModelManager, RepositorySettings


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
