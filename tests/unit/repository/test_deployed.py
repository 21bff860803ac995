"""Versions that are handed over: served after the last gate, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_engine import FakeEngine, add_model

from penstock.errors import CoreError, FailedPreconditionError, UnavailableError
from penstock.repository import RepositorySettings
from penstock.repository.catalog import ServedVersion
from penstock.repository.deployed import DeployedModels


async def passes(served: ServedVersion) -> ServedVersion:
    return served


async def fails(served: ServedVersion) -> ServedVersion:
    raise FailedPreconditionError("it is off")


@asynccontextmanager
async def running(engine: FakeEngine, **settings: Any) -> AsyncIterator[DeployedModels]:
    models = DeployedModels(engine, RepositorySettings(paths=(), **settings))
    try:
        await models.start()
        yield models
    finally:
        await models.close(30)


def serving(engine: FakeEngine) -> list[int]:
    return [version.spec.version for version in engine.serving.get("m", [])]


def repository(root: Path, version: int, config: str | None = None) -> Path:
    add_model(root / str(version), "m", versions=(version,), config=config)
    return root / str(version)


async def test_nothing_is_served_until_it_is_deployed(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running(engine) as models:
        assert models.all_ready() and await models.index() == []
        await models.deploy("m", repository(tmp_path, 1), 1, passes)
        assert serving(engine) == [1] and models.ready("m", "1")


async def test_next_version_replaces_the_one_before(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running(engine) as models:
        await models.deploy("m", repository(tmp_path, 1), 1, passes)
        await models.deploy("m", repository(tmp_path, 2), 2, passes)
        assert serving(engine) == [2] and not models.ready("m", "1")
    assert [version.log[-1] for version in engine.created] == ["close", "close"]


async def test_refused_version_is_closed_and_the_one_before_serves_on(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running(engine) as models:
        await models.deploy("m", repository(tmp_path, 1), 1, passes)
        with pytest.raises(CoreError, match="failed to load 'm', it is off"):
            await models.deploy("m", repository(tmp_path, 2), 2, fails)
        assert serving(engine) == [1]
        assert engine.created[-1].log == ["start", "close"]
        assert models.all_ready()
        (first, second) = await models.index()
        assert (first.state, second.state) == ("READY", "UNAVAILABLE")
        assert "it is off" in second.reason


async def test_version_that_does_not_load_changes_nothing(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running(engine) as models:
        await models.deploy("m", repository(tmp_path, 1), 1, passes)
        engine.fail["create", "m"] = FailedPreconditionError("no memory")
        with pytest.raises(CoreError, match="no memory"):
            await models.deploy("m", repository(tmp_path, 2), 2, passes)
        assert serving(engine) == [1] and models.all_ready()


async def test_what_the_gate_returns_is_served(tmp_path: Path) -> None:
    async def marks(served: ServedVersion) -> ServedVersion:
        return replace(served, config=replace(served.config, parameters={"mark": "1"}))

    async with running(FakeEngine()) as models:
        await models.deploy("m", repository(tmp_path, 1), 1, marks)
        assert models.config("m").parameters == {"mark": "1"}


async def test_policy_of_the_configuration_does_not_matter(tmp_path: Path) -> None:
    engine = FakeEngine()
    place = repository(tmp_path, 3, "version_policy { specific { versions: 9 } }")
    async with running(engine) as models:
        await models.deploy("m", place, 3, passes)
        assert serving(engine) == [3]


async def test_version_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with running(FakeEngine()) as models:
        with pytest.raises(CoreError, match="failed to load 'm'"):
            await models.deploy("m", repository(tmp_path, 1), 2, passes)


async def test_missing_model_makes_the_server_unready(tmp_path: Path) -> None:
    async with running(FakeEngine()) as models:
        models.missing = frozenset({"m"})
        assert not models.all_ready()
    async with running(FakeEngine(), strict_readiness=False) as models:
        models.missing = frozenset({"m"})
        assert models.all_ready()


async def test_clients_cannot_load_or_unload(tmp_path: Path) -> None:
    async with running(FakeEngine()) as models:
        await models.deploy("m", repository(tmp_path, 1), 1, passes)
        for change in (models.load("m"), models.unload("m")):
            with pytest.raises(UnavailableError, match="explicit model load / unload"):
                await change


async def test_version_unloaded_for_another_is_loaded_on_demand_and_checked_again(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    checked = []

    async def checks(served: ServedVersion) -> ServedVersion:
        checked.append(served.version)
        return replace(served)  # as one that adds something to it

    takes = 'parameters { key: "memory_bytes" value { string_value: "100" } }\n'
    async with running(engine, memory_budget_bytes=100, min_residency_s=0.0) as models:
        await models.deploy("m", repository(tmp_path / "m", 3, takes), 3, checks)
        add_model(tmp_path / "n", "n", config=takes)
        await models.deploy("n", tmp_path / "n", 1, passes)
        assert (serving(engine), engine.on_demand["m"]) == ([], True)
        assert models.serving_config("m", 3) is not None  # what clients know of it
        assert models.serving_config("m", 2) is None
        assert models.all_ready()
        engine.waits["m"] = 1
        await models.demand.load("m")
        assert serving(engine) == [3] and engine.serving["n"] == []
        assert checked == [3, 3]
        assert (models.memory() or {})["resident"] == {"m": 100}
        await models.withdraw("m")
        assert not engine.on_demand["m"]
        assert models.serving_config("m", 3) is None


async def test_deployments_at_the_same_time_leave_each_others_versions_where_there_is_room(
    tmp_path: Path,
) -> None:
    """Room, that is, once the versions before have gone: that is waited for."""
    engine = FakeEngine()
    takes = 'parameters { key: "memory_bytes" value { string_value: "60" } }\n'
    for name in ("m", "n"):
        for number in ("1", "2"):
            add_model(tmp_path / number, name, config=takes)
    async with running(engine, memory_budget_bytes=190, min_residency_s=0.0) as models:
        for name in ("m", "n"):
            await models.deploy(name, tmp_path / "1", 1, passes)
        drains = [engine.hold("close", name) for name in ("m", "n")]
        deploying = [
            asyncio.create_task(models.deploy(name, tmp_path / "2", 1, passes))
            for name in ("m", "n")
        ]
        (first,), _ = await asyncio.wait(deploying, return_when=asyncio.FIRST_COMPLETED)
        assert first.exception() is None
        for drain in drains:
            drain.set()
        await asyncio.gather(*deploying)
        assert {name for name, versions in engine.serving.items() if versions} == {"m", "n"}
        assert (models.memory() or {})["evictions"] == 0


async def test_version_that_fails_its_check_and_does_not_end_counts_until_it_has(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    takes = 'parameters { key: "memory_bytes" value { string_value: "100" } }\n'
    async with running(engine, memory_budget_bytes=150) as models:
        engine.drains_in_time = False
        with pytest.raises(CoreError, match="it is off"):
            await models.deploy("m", repository(tmp_path, 1, takes), 1, fails)
        assert (models.memory() or {})["resident"] == {"m": 100}
        engine.drains_in_time = True
        await models.leftovers.look()
        assert (models.memory() or {})["resident"] == {}
