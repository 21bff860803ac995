"""What the index remembers of models and versions that are gone."""

import shutil
from pathlib import Path

from tests.support.fake_engine import FakeEngine, add_model
from tests.unit.repository.test_manager import explicit, serving

from penstock.codec import IndexEntry
from penstock.errors import CoreError
from penstock.repository.catalog import MAX_GONE, MAX_GONE_MODELS


async def test_versions_that_are_gone_are_forgotten_but_for_the_last(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with explicit(engine, tmp_path) as manager:
        for version in range(1, 3 * MAX_GONE):
            add_model(tmp_path, "a", versions=(version,))
            await manager.load("a")
            shutil.rmtree(tmp_path / "a")
        entries = await manager.index()
        assert len(entries) <= MAX_GONE + 3  # with the one before, which may still be drained
        assert entries[-1] == IndexEntry("a", str(3 * MAX_GONE - 1), "READY")
        assert {entry.state for entry in entries[:-2]} == {"UNAVAILABLE"}
        assert int(entries[0].version) > MAX_GONE
        assert len(engine.unready["a"]) == len(entries) - 1
        assert serving(engine, "a") == [3 * MAX_GONE - 1]


async def test_versions_that_failed_and_are_gone_are_forgotten_too(tmp_path: Path) -> None:
    async with explicit(FakeEngine(), tmp_path) as manager:
        for version in range(1, 3 * MAX_GONE):
            add_model(tmp_path, "a", versions=(version,), signature="corrupt")
            try:
                await manager.load("a")
            except CoreError as error:
                assert "is corrupt" in error.message
            shutil.rmtree(tmp_path / "a")
        entries = await manager.index()
        assert len(entries) == MAX_GONE + 1
        assert "is corrupt" in entries[-1].reason


async def test_versions_on_disk_are_remembered_however_many(tmp_path: Path) -> None:
    async with explicit(FakeEngine(), tmp_path) as manager:
        for version in range(1, 3 * MAX_GONE):
            add_model(tmp_path, "a", versions=(version,))
            await manager.load("a")
        assert len(await manager.index()) == 3 * MAX_GONE - 1


async def test_models_that_are_gone_are_forgotten_but_for_the_last(tmp_path: Path) -> None:
    engine = FakeEngine()
    count = MAX_GONE_MODELS + 10
    async with explicit(engine, tmp_path) as manager:
        add_model(tmp_path, "kept")
        await manager.load("kept")
        await manager.unload("kept")
        for number in range(count):
            name = f"m{number}"
            add_model(tmp_path, name)
            await manager.load(name)
            shutil.rmtree(tmp_path / name)
            await manager.unload(name)
        names = {entry.name for entry in await manager.index()}
        assert "kept" in names
        assert f"m{count - 1}" in names
        assert "m0" not in names
        assert "m0" not in engine.unready
        assert len(names) <= MAX_GONE_MODELS + 3  # those that are drained are not gone yet
