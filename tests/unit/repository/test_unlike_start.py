"""Which models a new start would not serve as they are served now."""

from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model

from penstock.errors import CoreError
from penstock.repository import ModelManager, RepositorySettings

OWN = '{"max_batch_size": 2}'


async def test_models_loaded_and_unloaded_since_the_start_are_unlike_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add_model(tmp_path, name)
    settings = RepositorySettings(paths=(tmp_path,), control_mode="explicit", load_models=("a",))
    manager = ModelManager(FakeEngine(), settings)
    try:
        await manager.start()
        assert manager.unlike_start(("a",)) == []
        assert manager.unlike_start(()) == ["a"]
        await manager.load("b")
        assert manager.unlike_start(("a",)) == ["b"]
        assert manager.unlike_start(("*",)) == []
        await manager.unload("b")
        assert manager.unlike_start(("a",)) == []
        await manager.unload("a")
        assert manager.unlike_start(("a",)) == ["a"]
        assert manager.unlike_start(("*",)) == ["a", "b"]
        await manager.load("a", config_json=OWN)
        assert manager.unlike_start(("a",)) == ["a"]
        await manager.load("a")
        assert manager.unlike_start(("a",)) == []
    finally:
        await manager.close(30)


async def test_model_that_failed_is_no_loss(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config="what is this")
    settings = RepositorySettings(paths=(tmp_path,), control_mode="explicit", exit_on_error=False)
    manager = ModelManager(FakeEngine(), settings)
    try:
        await manager.start()
        with pytest.raises(CoreError):
            await manager.load("a")
        assert manager.unlike_start(("a",)) == manager.unlike_start(()) == []
    finally:
        await manager.close(30)
