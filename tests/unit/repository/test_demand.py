"""Loads on demand and what comes between: callers that leave, unloads, directories that change."""

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.support.budgets import ask, made, served, serving, takes
from tests.support.fake_engine import FakeEngine, add_model

from penstock.errors import (
    Code,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from penstock.repository.manager import ModelManager


def always() -> bool:
    return True


async def until_loading(manager: ModelManager, name: str) -> None:
    """Returns once a load has begun, which may wait for room: nobody is told, so it is asked."""
    async with asyncio.timeout(60):
        while {e.state for e in await manager.index() if e.name == name} != {"LOADING"}:
            pass


async def entered(engine: FakeEngine, step: str, name: str) -> None:
    assert await asyncio.to_thread(engine.entered[step, name].wait, 60)


async def test_load_that_nobody_waits_for_is_given_up_and_has_not_failed(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        await manager.demand.load("a")
        assert (engine.given_up, engine.ended, engine.created) == (["a"], [], [])
        await ask(manager, engine, "a")  # nothing is kept against it
        assert served(engine) == {"a"}
        assert (manager.memory() or {})["loads"] == {"done": 1, "failed": 0}


async def test_load_whose_last_caller_leaves_while_it_waits_is_given_up(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(100))
    async with serving(tmp_path, 100) as (manager, engine):
        await ask(manager, engine, "a")
        engine.counters[engine.serving["a"][0]] = {"running": 1}
        looks = []

        class Waits(dict[str, int]):
            """Whoever waits for b leaves when it was looked for the third time."""

            def get(self, name: str, default: int = 0) -> int:  # type: ignore[override]
                looks.append(name)
                return 1 if len(looks) < 3 else 0

        engine.waits = Waits()
        await manager.demand.load("b")
        assert (engine.given_up, engine.ended) == (["b"], [])
        assert served(engine) == {"a"}
        assert "nobody waited for it" in (await manager.index())[1].reason


async def test_load_brings_only_what_was_said_and_nothing_where_that_is_not_asked(
    tmp_path: Path,
) -> None:
    """The core ends those who ask for other versions: nobody may be left."""
    add_model(tmp_path, "a", versions=(1, 3), config=takes(10))

    class Told(FakeEngine):
        def set_loadable(self, model_name: str, versions: list[int]) -> None:  # type: ignore[override]
            super().set_loadable(model_name, versions)
            self.waits[model_name] = 0  # all asked for version 7

    engine = Told()
    async with serving(tmp_path, 100, engine=engine) as (manager, _):
        await ask(manager, engine, "a")
        assert engine.loadable == {"a": [3]}
        assert (engine.given_up, engine.ended, engine.opened) == (["a"], [], [])


async def test_load_on_demand_does_not_undo_an_unload(tmp_path: Path) -> None:
    """The request came before the unload, and the manager hears of it after."""
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        await manager.load("a")
        await manager.unload("a")
        await ask(manager, engine, "a")
        await manager.bring("a")
        assert served(engine) == set() and len(made(engine, "a")) == 1
        assert not engine.on_demand["a"]
        assert (manager.memory() or {})["loads"] == {"done": 0, "failed": 0}


async def test_directory_that_comes_back_is_on_demand_again(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100, control_mode="poll") as (manager, engine):
        await ask(manager, engine, "a")
        shutil.rmtree(tmp_path / "a")
        await manager.withdraw("a")
        assert (served(engine), engine.on_demand) == (set(), {"a": False})
        add_model(tmp_path, "a", config=takes(10))
        await manager.follow("a", always)
        assert (served(engine), engine.on_demand) == (set(), {"a": True})
        await ask(manager, engine, "a")
        assert served(engine) == {"a"}


async def test_directory_that_changes_while_it_is_loaded_is_loaded_again(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100, control_mode="poll") as (manager, engine):
        opening = engine.hold("open", "a")
        asked = asyncio.create_task(ask(manager, engine, "a"))
        await entered(engine, "open", "a")
        followed = asyncio.create_task(manager.follow("a", always))
        opening.set()
        await asyncio.gather(asked, followed)
        assert len(made(engine, "a")) == 2
        assert engine.serving["a"] == [made(engine, "a")[1]]


async def test_defect_of_a_load_is_told_to_those_who_wait(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        engine.fail["create", "a"] = RuntimeError("a secret")
        await ask(manager, engine, "a")
        ((name, code, text),) = engine.ended
        assert (name, code) == ("a", Code.INTERNAL)
        assert "a secret" not in text


async def test_model_is_brought_for_all_who_have_to_know_it_by_one_load(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        await asyncio.gather(*(manager.bring("a", version) for version in ("", "1", "")))
        assert served(engine) == {"a"} and len(made(engine, "a")) == 1
        await manager.bring("a")
        await manager.bring("nobody")
        assert len(engine.created) == 1


async def test_version_that_no_load_has_brings_none(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        with pytest.raises(NotFoundError, match="'a' version 7 is not found"):
            await manager.bring("a", "7")
        assert engine.created == [] and engine.given_up == ["a"]
        with pytest.raises(InvalidArgumentError, match="version string 'x'"):
            await manager.bring("a", "x")
        seventh, first = await asyncio.gather(
            manager.bring("a", "7"), manager.bring("a", "1"), return_exceptions=True
        )
        assert (isinstance(seventh, NotFoundError), first) == (True, None)
        assert served(engine) == {"a"}


async def test_model_that_cannot_be_brought_says_why_to_all(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        engine.fail["create", "a"] = InvalidArgumentError("corrupt")
        brings = [asyncio.create_task(manager.bring("a")) for _ in range(3)]
        done, _ = await asyncio.wait(brings)
        assert ["corrupt" in str(each.exception()) for each in done] == [True] * 3
        assert [code for _, code, _ in engine.ended] == [Code.INVALID_ARGUMENT]


async def test_whoever_leaves_is_waited_for_no_more(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(100))
    async with serving(tmp_path, 100) as (manager, engine):
        await ask(manager, engine, "a")
        engine.counters[engine.serving["a"][0]] = {"running": 1}
        bring = asyncio.create_task(manager.bring("b"))
        await until_loading(manager, "b")
        bring.cancel()
        async with asyncio.timeout(60):
            while not engine.given_up:
                await manager.index()
        assert (engine.given_up, served(engine)) == (["b"], {"a"})


async def test_end_of_the_server_ends_who_waits(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(100))
    async with serving(tmp_path, 100) as (manager, engine):
        await ask(manager, engine, "a")
        engine.counters[engine.serving["a"][0]] = {"running": 1}
        bring = asyncio.create_task(manager.bring("b"))
        await until_loading(manager, "b")
        await manager.close(5.0)
        with pytest.raises(UnavailableError, match="shutting down"):
            await bring


async def test_only_so_many_wait_without_a_request(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        opening = engine.hold("open", "a")
        brings = [asyncio.create_task(manager.bring("a")) for _ in range(257)]
        done, _ = await asyncio.wait(brings, return_when=asyncio.FIRST_COMPLETED)
        opening.set()
        (refused,) = done
        assert isinstance(refused.exception(), ResourceExhaustedError)
        await asyncio.gather(*(each for each in brings if each is not refused))


async def test_demand_after_the_end_is_refused(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    async with serving(tmp_path, 100) as (manager, engine):
        await manager.close(5.0)
        await ask(manager, engine, "a")
        assert engine.ended[-1][:2] == ("a", Code.UNAVAILABLE)
        assert engine.created == []
