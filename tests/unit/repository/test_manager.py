"""Loads, swaps and unloads on a fake engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text

from penstock.codec import IndexEntry
from penstock.errors import (
    CoreError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    StartupError,
    UnavailableError,
    UnimplementedError,
)
from penstock.repository import ModelManager, RepositorySettings


@asynccontextmanager
async def running(
    engine: FakeEngine, *paths: Path, start: bool = True, **settings: Any
) -> AsyncIterator[ModelManager]:
    manager = ModelManager(engine, RepositorySettings(paths=paths, **settings))
    try:
        if start:
            await manager.start()
        yield manager
    finally:
        await manager.close(30)


def explicit(engine: FakeEngine, *paths: Path, **settings: Any) -> Any:
    return running(engine, *paths, control_mode="explicit", **settings)


async def entered(engine: FakeEngine, step: str, model: str) -> None:
    assert await asyncio.to_thread(engine.entered[step, model].wait, 30)


def serving(engine: FakeEngine, name: str) -> list[int]:
    return [version.spec.version for version in engine.serving[name]]


async def test_mode_none_serves_every_model_at_start(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    add_model(tmp_path, "b", versions=(1, 3))
    engine = FakeEngine()
    async with running(engine, tmp_path) as manager:
        assert (serving(engine, "a"), serving(engine, "b")) == ([1], [3])
        assert manager.ready("a") and manager.ready("b", "3") and not manager.ready("b", "1")
        assert manager.all_ready()
        assert await manager.index() == [
            IndexEntry("a", "1", "READY"),
            IndexEntry("b", "3", "READY"),
        ]


async def test_version_is_warm_and_started_before_it_serves(tmp_path: Path) -> None:
    config = 'model_warmup [{ name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: 4'
    add_model(tmp_path, "a", config=config + " zero_data: true } } count: 2 }]")
    engine = FakeEngine()
    async with running(engine, tmp_path):
        (version,) = engine.serving["a"]
        assert version.log == ["warm_up", "warm_up", "start"]
    assert version.log[-1] == "close"


async def test_mode_none_refuses_load_and_unload(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    async with running(FakeEngine(), tmp_path) as manager:
        for change in (manager.load("a"), manager.unload("a")):
            with pytest.raises(UnavailableError, match="explicit model load / unload is not"):
                await change


async def test_mode_explicit_loads_the_named_models_only(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    add_model(tmp_path, "b")
    async with explicit(FakeEngine(), tmp_path, load_models=("b",)) as manager:
        assert await manager.index() == [IndexEntry("a"), IndexEntry("b", "1", "READY")]
        assert await manager.index(ready_only=True) == [IndexEntry("b", "1", "READY")]
        assert manager.all_ready()


async def test_star_loads_all(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    add_model(tmp_path, "b")
    async with explicit(FakeEngine(), tmp_path, load_models=("*",)) as manager:
        assert manager.ready("a") and manager.ready("b")


async def test_broken_model_stops_the_start_with_exit_on_error(tmp_path: Path) -> None:
    add_model(tmp_path, "bad", signature="not json")
    add_model(tmp_path, "good")
    async with running(FakeEngine(), tmp_path, start=False) as manager:
        with pytest.raises(StartupError, match="failed to load 'bad', version 1: the model file"):
            await manager.start()
        assert not manager.all_ready()


@pytest.mark.parametrize("strict", [True, False])
async def test_broken_model_does_not_stop_the_others(tmp_path: Path, strict: bool) -> None:
    add_model(tmp_path, "bad", signature="not json")
    add_model(tmp_path, "good")
    settings = {"exit_on_error": False, "strict_readiness": strict}
    async with running(FakeEngine(), tmp_path, **settings) as manager:
        assert manager.ready("good") and not manager.ready("bad")
        assert manager.all_ready() is not strict
        bad = (await manager.index())[0]
        assert (bad.version, bad.state) == ("1", "UNAVAILABLE")
        assert "the model file is corrupt" in bad.reason


async def test_unreadable_repository_is_a_startup_error(tmp_path: Path) -> None:
    async with running(FakeEngine(), tmp_path / "nowhere", start=False) as manager:
        with pytest.raises(StartupError, match="cannot read model repository .*nowhere"):
            await manager.start()


async def test_unexpected_failure_is_internal_and_keeps_its_text_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    engine.fail["create", "a"] = ZeroDivisionError("/secret/path")
    async with explicit(engine, tmp_path) as manager:
        with pytest.raises(InternalError, match="unexpected ZeroDivisionError$"):
            await manager.load("a")
    assert "/secret/path" in caplog.text


async def test_load_of_an_unknown_model(tmp_path: Path) -> None:
    async with explicit(FakeEngine(), tmp_path) as manager:
        with pytest.raises(InternalError) as caught:
            await manager.load("nope")
        assert str(caught.value) == "failed to load 'nope', failed to poll from model repository"
        assert await manager.index() == []
        assert manager.all_ready()


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/1", "a\0"])
async def test_names_that_are_no_directory_names_are_unknown(tmp_path: Path, name: str) -> None:
    add_model(tmp_path / "repository", "a")
    add_model(tmp_path, "a")
    async with explicit(FakeEngine(), tmp_path / "repository") as manager:
        with pytest.raises(InternalError, match="failed to poll from model repository"):
            await manager.load(name)


async def test_model_in_two_repositories_is_an_error_for_that_model(tmp_path: Path) -> None:
    add_model(tmp_path / "one", "a")
    add_model(tmp_path / "two", "a")
    add_model(tmp_path / "two", "b")
    paths = (tmp_path / "one", tmp_path / "two")
    async with running(FakeEngine(), *paths, exit_on_error=False) as manager:
        assert manager.ready("b") and not manager.ready("a")
        assert "is in 2 repositories" in (await manager.index())[0].reason
        assert not manager.all_ready()


async def test_failed_reload_leaves_the_old_version_and_says_why(tmp_path: Path) -> None:
    directory = add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        (old,) = engine.serving["a"]
        (directory / "1" / "model.onnx").write_text("broken")
        with pytest.raises(InvalidArgumentError, match="corrupt"):
            await manager.load("a")
        assert engine.serving["a"] == [old]
        assert "close" not in old.log
        (entry,) = await manager.index()
        assert entry.state == "READY"
        assert "reload failed" in entry.reason and "corrupt" in entry.reason
        assert manager.all_ready()


async def test_reload_that_fails_in_its_configuration_leaves_the_old_version(
    tmp_path: Path,
) -> None:
    directory = add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        (directory / "config.pbtxt").write_text("foo: 1")
        with pytest.raises(InvalidArgumentError, match=r"config\.pbtxt:1: .*foo"):
            await manager.load("a")
        assert manager.ready("a", "1")
        assert "config.pbtxt:1" in (await manager.index())[0].reason


async def test_reload_swaps_at_once_and_drains_the_old(tmp_path: Path) -> None:
    directory = add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        (old,) = engine.serving["a"]
        directory.joinpath("2").mkdir()
        directory.joinpath("2", "model.onnx").write_text(signature_text())
        gate = engine.hold("close", "a")
        await manager.load("a")
        assert serving(engine, "a") == [2]
        await entered(engine, "close", "a")
        assert await manager.index() == [
            IndexEntry("a", "1", "UNLOADING"),
            IndexEntry("a", "2", "READY"),
        ]
        gate.set()
        await manager.close(30)
        assert old.log == ["start", "close"]
        assert (await manager.index())[0] == IndexEntry("a", "1", "UNAVAILABLE", "unloaded")


async def test_one_bad_version_fails_the_whole_load(tmp_path: Path) -> None:
    directory = add_model(tmp_path, "a", versions=(1, 2), config="version_policy { all {} }")
    (directory / "2" / "model.onnx").unlink()
    engine = FakeEngine()
    async with explicit(engine, tmp_path) as manager:
        with pytest.raises(NotFoundError, match="version 2 has no file 'model.onnx'"):
            await manager.load("a")
        assert not manager.ready("a")
        assert engine.serving["a"] == [] and engine.unready["a"] == [1, 2]
        assert [version.log for version in engine.created] == [[]]  # never started


async def test_index_says_loading_while_a_model_loads(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    gate = engine.hold("open", "a")
    async with explicit(engine, tmp_path) as manager:
        load = asyncio.create_task(manager.load("a"))
        await entered(engine, "open", "a")
        assert await manager.index() == [IndexEntry("a", "1", "LOADING")]
        assert engine.unready["a"] == [1]
        assert not manager.ready("a") and not manager.all_ready()
        gate.set()
        await load
        assert manager.ready("a") and manager.all_ready()


async def test_caller_that_leaves_does_not_stop_the_load(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    gate = engine.hold("open", "a")
    async with explicit(engine, tmp_path) as manager:
        load = asyncio.create_task(manager.load("a"))
        await entered(engine, "open", "a")
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        gate.set()
        await manager.load("a")  # waits for the first: loads of one model do not overlap
        assert len(engine.created) == 2


async def test_unload_stops_serving_at_once_and_ends_unavailable(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        gate = engine.hold("close", "a")
        await manager.unload("a", unload_dependents=True)
        assert engine.serving["a"] == [] and engine.unready["a"] == [1]
        assert not manager.ready("a")
        assert await manager.index() == [IndexEntry("a", "1", "UNLOADING")]
        with pytest.raises(NotFoundError, match="unknown model: 'a' has no available versions$"):
            manager.metadata("a")
        with pytest.raises(UnavailableError, match="'a' version 1 is not at ready state$"):
            manager.metadata("a", "1")
        gate.set()
        await manager.close(30)
        assert await manager.index() == [IndexEntry("a", "1", "UNAVAILABLE", "unloaded")]


async def test_model_can_be_loaded_again_while_it_drains(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        gate = engine.hold("close", "a")
        await manager.unload("a")
        await manager.load("a")
        gate.set()
        await manager.close(30)
        assert all(version.log == ["start", "close"] for version in engine.created)
        assert len(engine.created) == 2


async def test_unload_of_what_is_not_loaded(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    async with explicit(FakeEngine(), tmp_path) as manager:
        await manager.unload("a")
        with pytest.raises(NotFoundError, match="failed to unload 'b'"):
            await manager.unload("b")


async def test_unload_clears_a_failure(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config='name: "b"')
    async with explicit(FakeEngine(), tmp_path) as manager:
        with pytest.raises(InvalidArgumentError, match="name: expected the name of the directory"):
            await manager.load("a")
        assert not manager.all_ready()
        await manager.unload("a")
        assert manager.all_ready()


async def test_file_contents_and_repository_names_are_refused(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    async with explicit(FakeEngine(), tmp_path) as manager:
        with pytest.raises(UnimplementedError, match="'file:1/model.onnx' is not supported"):
            await manager.load("a", files=("1/model.onnx",))
        for call in (
            manager.load("a", repository_name="r"),
            manager.unload("a", repository_name="r"),
            manager.index(repository_name="r"),
        ):
            with pytest.raises(UnimplementedError, match="'repository_name' specification is not"):
                await call


async def test_override_applies_to_this_load_only(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    async with explicit(FakeEngine(), tmp_path) as manager:
        await manager.load("a", config_json='{"max_batch_size": 5}')
        assert manager.config("a").max_batch_size == 5
        await manager.load("a")
        assert manager.config("a").max_batch_size == 64


async def test_metadata_and_statistics(tmp_path: Path) -> None:
    add_model(tmp_path, "a", versions=(1, 2), config="version_policy { all {} }")
    add_model(tmp_path, "b")
    async with running(FakeEngine(), tmp_path) as manager:
        metadata = manager.metadata("a")
        assert (metadata.versions, metadata.platform) == (("1", "2"), "onnxruntime_onnx")
        assert [(t.name, t.shape) for t in metadata.inputs] == [("x", (-1, 4))]
        listed = [(s.name, s.version) for s in manager.statistics()]
        assert listed == [("a", 1), ("a", 2), ("b", 1)]
        assert [s.version for s in manager.statistics("a")] == [1, 2]
        assert [s.version for s in manager.statistics("a", "1")] == [1]


@pytest.mark.parametrize(
    ("name", "version", "error", "text"),
    [
        ("nope", "", NotFoundError, "Request for unknown model: 'nope' is not found"),
        ("a", "99", NotFoundError, "Request for unknown model: 'a' version 99 is not found"),
        ("a", "x", InvalidArgumentError, "failed to get model version from specified version str"),
        ("a", "-1", InvalidArgumentError, "failed to get model version from specified version st"),
        ("a", "9" * 30, InvalidArgumentError, "failed to get model version from specified versio"),
    ],
)
async def test_reads_of_what_is_not_there(
    tmp_path: Path, name: str, version: str, error: type[CoreError], text: str
) -> None:
    add_model(tmp_path, "a")
    async with running(FakeEngine(), tmp_path) as manager:
        for read in (manager.metadata, manager.config, manager.statistics):
            with pytest.raises(error, match=text):
                read(name, version)
        if error is NotFoundError:
            assert manager.ready(name, version) is False


async def test_close_takes_everything_out_and_refuses_loads(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        (version,) = engine.serving["a"]
        assert await manager.close(30) is True
        assert engine.serving["a"] == [] and version.log[-1] == "close"
        assert not manager.all_ready()
        with pytest.raises(UnavailableError, match="shutting down"):
            await manager.load("a")


async def test_close_is_bounded_when_a_drain_is_stuck(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    async with explicit(engine, tmp_path, load_models=("a",)) as manager:
        (version,) = engine.serving["a"]
        gate = engine.hold("close", "a")
        assert await manager.close(0) is False
        assert engine.serving["a"] == [] and "close" not in version.log
        gate.set()


async def test_drain_that_takes_too_long_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_model(tmp_path, "a")
    engine = FakeEngine()
    engine.drains_in_time = False
    async with explicit(engine, tmp_path, load_models=("a",), drain_timeout_s=5.0) as manager:
        await manager.unload("a")
    assert "model 'a' version 1: requests were not finished within 5 s and failed" in caplog.text
