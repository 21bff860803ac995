"""Models under a memory budget: what is loaded at start, what makes room, what is said of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.budgets import Hand, Hurried, ask, made, served, serving, takes, until_unloaded
from tests.support.fake_engine import FakeEngine, add_model

from penstock.errors import (
    AbortedError,
    Code,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from penstock.repository.manager import ModelManager

Change = Callable[[ModelManager, str], Coroutine[Any, Any, None]]


async def follow(manager: ModelManager, name: str) -> None:
    """As where its directory has changed."""
    await manager.follow(name, lambda: True)


class Looked(Mapping[str, Any]):
    """Counters of a version with a batch at work, that tell when they are looked at."""

    def __init__(self) -> None:
        self.looked = asyncio.Event()

    def __iter__(self) -> Iterator[str]:
        return iter(("running",))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> int:
        self.looked.set()
        return 1


class Watched(Hand):
    """Tells when somebody has looked for room."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = asyncio.Event()

    def clock(self) -> float:
        self.looked.set()
        return super().clock()


@asynccontextmanager
async def full(root: Path) -> AsyncIterator[tuple[ModelManager, FakeEngine, Looked]]:
    """Models a and b, room for one of them; a has it, and is at work."""
    for name in "ab":
        add_model(root, name, config=takes(60))
    async with serving(root, 100, control_mode="explicit") as (manager, engine):
        await manager.load("a")
        engine.counters[engine.serving["a"][0]] = busy = Looked()
        yield manager, engine, busy


async def test_start_loads_the_pinned_ones_only(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(10))
    add_model(tmp_path, "b", config=takes(10, pinned=True))
    async with serving(tmp_path, 100) as (manager, engine):
        assert served(engine) == {"b"}
        assert engine.on_demand == {"a": True, "b": True}
        assert manager.all_ready()
        (a, b) = await manager.index()
        assert (a.state, b.state) == ("UNAVAILABLE", "READY")
        assert manager.memory() == {
            "budget": 100,
            "resident": {"b": 10},
            "evictions": 0,
            "loads": {"done": 0, "failed": 0},
        }


async def test_room_is_made_by_the_idle_and_not_by_the_busy(tmp_path: Path) -> None:
    for name in "abc":
        add_model(tmp_path, name, config=takes(50))
    async with serving(tmp_path, 100) as (manager, engine):
        await ask(manager, engine, "a")
        await ask(manager, engine, "b")
        engine.counters[engine.serving["a"][0]] = {"pending": 0, "running": 1}
        await ask(manager, engine, "c")
        assert served(engine) == {"a", "c"}
        assert "memory budget" in (await manager.index())[1].reason
        engine.counters[engine.serving["c"][0]] = {"background": {"pending": 1}}
        engine.waits["b"] = 0  # who asked has left
        await manager.demand.load("b")
        assert served(engine) == {"a", "c"}
        assert (engine.ended, engine.given_up) == ([], ["b"])
        assert "memory budget" in (await manager.index())[1].reason
        memory = manager.memory() or {}
        assert memory["loads"] == {"done": 3, "failed": 0}


async def test_model_that_was_loaded_a_moment_ago_stays_for_a_while(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(100))
    settings: dict[str, Any] = {"min_residency_s": 3600.0, "control_mode": "explicit"}
    async with serving(tmp_path, 100, **settings) as (manager, engine):
        await ask(manager, engine, "a")
        await manager.demand.load("b")  # nobody waits on: it does not either
        assert served(engine) == {"a"}
        await manager.load("b")  # somebody wishes so
        assert served(engine) == {"b"}


async def test_nobody_has_to_go_for_what_cannot_be_had(tmp_path: Path) -> None:
    """Neither for a model that fits in no case, nor where those that are idle do not suffice."""
    for name, size in (("a", 40), ("busy", 40), ("huge", 101), ("big", 70)):
        add_model(tmp_path, name, config=takes(size))
    explicit: dict[str, Any] = {"hand": Hurried(), "control_mode": "explicit"}
    async with serving(tmp_path, 100, **explicit) as (manager, engine):
        await manager.load("a")
        await manager.load("busy")
        engine.counters[engine.serving["busy"][0]] = {"running": 1}
        await ask(manager, engine, "huge")
        with pytest.raises(ResourceExhaustedError, match="'big' takes 70 bytes"):
            await manager.load("big")
        assert served(engine) == {"a", "busy"}
        assert [code for _, code, _ in engine.ended] == [Code.RESOURCE_EXHAUSTED]
        assert made(engine, "huge") == made(engine, "big") == []


async def test_load_on_request_waits_for_the_busy_to_become_idle(tmp_path: Path) -> None:
    async with full(tmp_path) as (manager, engine, busy):
        load = asyncio.create_task(manager.load("b"))
        await busy.looked.wait()
        assert served(engine) == {"a"} and not load.done()
        engine.counters.clear()
        await load
        assert served(engine) == {"b"}


async def test_reload_that_has_no_room_beside_what_serves_does_not_wait(tmp_path: Path) -> None:
    for name, size in (("a", 60), ("busy", 30)):
        add_model(tmp_path, name, config=takes(size))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        await manager.load("a")
        await manager.load("busy")
        engine.counters[engine.serving["busy"][0]] = {"running": 1}
        with pytest.raises(ResourceExhaustedError, match="'a' takes 60 bytes"):
            await manager.load("a")
        assert served(engine) == {"a", "busy"}


async def test_load_that_waits_for_room_ends_with_the_server(tmp_path: Path) -> None:
    async with full(tmp_path) as (manager, engine, busy):
        load = asyncio.create_task(manager.load("b"))
        await busy.looked.wait()
    with pytest.raises(UnavailableError, match="the server is shutting down, model 'b'"):
        await load


@pytest.mark.parametrize("change", [ModelManager.load, follow])
async def test_reloads_that_wait_for_each_others_room_are_both_done(
    tmp_path: Path, change: Change
) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(60))
    hand = Watched()
    async with serving(tmp_path, 130, hand=hand, control_mode="explicit") as (manager, engine):
        busy = {name: Looked() for name in "ab"}
        for name in "ab":
            await manager.load(name)
            engine.counters[engine.serving[name][0]] = busy[name]
        a = asyncio.create_task(change(manager, "a"))
        await busy["b"].looked.wait()
        b = asyncio.create_task(change(manager, "b"))
        await busy["a"].looked.wait()
        drain = engine.hold("close", "a")
        engine.counters.clear()
        await a
        hand.looked.clear()
        await hand.looked.wait()  # for room, which the version before of a holds still
        drain.set()
        await b
        assert (len(made(engine, "a")), len(made(engine, "b"))) == (2, 2)
        assert served(engine) == {"a", "b"}


async def test_directories_that_do_not_fit_beside_each_other_are_both_taken_up(
    tmp_path: Path,
) -> None:
    """Unlike loads on request: nobody would try again, and what goes is loaded on demand."""
    for name in "ab":
        add_model(tmp_path, name, config=takes(30))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        for name in "ab":
            await manager.load(name)
            (tmp_path / name / "config.pbtxt").write_text(takes(60))
        await asyncio.gather(follow(manager, "a"), follow(manager, "b"))
        (later,) = served(engine)
        assert (len(made(engine, "a")), len(made(engine, "b"))) == (2, 2)
        assert engine.on_demand == {"a": True, "b": True}
        (earlier,) = {"a", "b"} - {later}
        await ask(manager, engine, earlier)
        assert served(engine) == {earlier}


async def test_loads_on_request_at_the_same_time_do_not_undo_each_other(tmp_path: Path) -> None:
    """Where both do not fit the later one is refused; one that comes afterwards is done."""
    for name in "ab":
        add_model(tmp_path, name, config=takes(60))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        results = await asyncio.gather(manager.load("a"), manager.load("b"), return_exceptions=True)
        (failure,) = (each for each in results if each is not None)
        (refused,) = {"a", "b"} - served(engine)
        assert isinstance(failure, ResourceExhaustedError)
        assert f"'{refused}' takes 60 bytes" in str(failure)
        await manager.load(refused)
        assert served(engine) == {refused}


async def test_load_beside_one_of_a_pinned_model_waits_for_the_busy(tmp_path: Path) -> None:
    for name, size in (("busy", 40), ("b", 50)):
        add_model(tmp_path, name, config=takes(size))
    add_model(tmp_path, "pinned", config=takes(30, pinned=True))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        await manager.load("busy")
        engine.counters[engine.serving["busy"][0]] = busy = Looked()
        opening = engine.hold("open", "pinned")
        pinned = asyncio.create_task(manager.load("pinned"))
        await asyncio.to_thread(engine.entered["open", "pinned"].wait)
        b = asyncio.create_task(manager.load("b"))
        await asyncio.sleep(0)  # it has been asked for
        opening.set()
        await pinned
        await busy.looked.wait()
        assert served(engine) == {"busy", "pinned"}
        engine.counters.clear()
        await b
        assert served(engine) == {"b", "pinned"}


async def test_load_that_waits_for_room_ends_with_an_unload(tmp_path: Path) -> None:
    async with full(tmp_path) as (manager, engine, busy):
        load = asyncio.create_task(manager.load("b"))
        await busy.looked.wait()
        await manager.unload("b")
        with pytest.raises(AbortedError, match="'b', another load or an unload was asked for"):
            await load
        assert served(engine) == {"a"} and engine.on_demand["b"] is False


async def test_load_that_waits_for_room_ends_with_the_next_one(tmp_path: Path) -> None:
    async with full(tmp_path) as (manager, engine, busy):
        first = asyncio.create_task(manager.load("b"))
        await busy.looked.wait()
        second = asyncio.create_task(manager.load("b"))
        with pytest.raises(AbortedError, match="while it waited for room"):
            await first
        engine.counters.clear()
        await second
        assert served(engine) == {"b"}


async def test_load_on_demand_that_waits_for_room_ends_with_an_unload(tmp_path: Path) -> None:
    async with full(tmp_path) as (manager, engine, busy):
        asker = asyncio.create_task(manager.bring("b"))
        await busy.looked.wait()
        await manager.unload("b")
        await asker  # who finds that it does not serve
        assert served(engine) == {"a"} and engine.on_demand["b"] is False
        assert (engine.ended, engine.given_up) == ([], [])


async def test_load_on_demand_that_waits_for_room_lets_a_load_on_request_pass(
    tmp_path: Path,
) -> None:
    """Which does not respect how long models have been loaded; who asked gets what it brings."""
    for name in "ab":
        add_model(tmp_path, name, config=takes(60))
    settings: dict[str, Any] = {"min_residency_s": 3600.0, "control_mode": "explicit"}
    async with serving(tmp_path, 100, **settings) as (manager, engine):
        await manager.load("a")
        asker = asyncio.create_task(manager.bring("b"))
        await asyncio.gather(asker, manager.load("b"))
        assert served(engine) == {"b"} and len(made(engine, "b")) == 1
        assert (engine.ended, engine.given_up) == ([], [])


async def test_as_many_go_as_one_needs_those_first_that_were_used_longest_ago(
    tmp_path: Path,
) -> None:
    for name, size in (("a", 30), ("b", 30), ("c", 30), ("big", 65)):
        add_model(tmp_path, name, config=takes(size))
    async with serving(tmp_path, 100) as (manager, engine):
        for used_ms, name in ((3, "a"), (1, "b"), (2, "c")):
            await ask(manager, engine, name)
            engine.counters[engine.serving[name][0]] = {"last_inference_ms": used_ms * 10**15}
        await ask(manager, engine, "big")
        assert served(engine) == {"a", "big"}
        assert (manager.memory() or {})["evictions"] == 2


async def test_pinned_model_that_is_unloaded_is_pinned_no_more(tmp_path: Path) -> None:
    """Whoever needs the memory that it still holds waits for it."""
    add_model(tmp_path, "a", config=takes(100, pinned=True))
    add_model(tmp_path, "b", config=takes(100))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        engine.drains_in_time = False
        await manager.unload("a")
        await until_unloaded(manager, "a")
        engine.waits["b"] = 1
        load = asyncio.create_task(manager.demand.load("b"))
        engine.drains_in_time = True
        await manager.leftovers.look()
        await load
        assert served(engine) == {"b"}
        assert engine.ended == []


async def test_failed_load_is_kept_for_those_who_ask_again(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(1))
    async with serving(tmp_path, 500) as (manager, engine):
        engine.fail["open", "a"] = InvalidArgumentError("corrupt")
        for _ in range(3):
            await ask(manager, engine, "a")
        assert [code for _, code, _ in engine.ended] == [Code.INVALID_ARGUMENT] * 3
        assert manager.all_ready()
        assert len([v for v in engine.created if v.spec.model_name == "a"]) == 0


async def test_concurrent_loads_are_one_at_a_time(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(1))
    async with serving(tmp_path, 500) as (manager, engine):
        gates = {name: engine.hold("open", name) for name in "ab"}
        engine.waits = {"a": 1, "b": 1}
        loads = [asyncio.create_task(manager.demand.load(name)) for name in "ab"]
        entered = {
            asyncio.create_task(asyncio.to_thread(engine.entered["open", name].wait, 30)): name
            for name in "ab"
        }
        (first,), (second,) = await asyncio.wait(entered, return_when=asyncio.FIRST_COMPLETED)
        assert not engine.entered["open", entered[second]].is_set()
        gates[entered[first]].set()
        assert await second
        gates[entered[second]].set()
        await asyncio.gather(*loads)
        assert served(engine) == {"a", "b"}


async def test_without_a_budget_nothing_is_on_demand(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    async with serving(tmp_path, 0) as (manager, engine):
        assert engine.on_demand == {"a": False}
        assert manager.memory() is None
