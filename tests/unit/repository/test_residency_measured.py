"""What models are measured to take under a memory budget, what is done about it, and until when."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.budgets import (
    Hand,
    Hurried,
    MeasuredEngine,
    ask,
    made,
    resident,
    served,
    serving,
    takes,
    until_unloaded,
)
from tests.support.fake_engine import add_model

from penstock.errors import Code, CoreError, InvalidArgumentError, ResourceExhaustedError
from penstock.repository.measurements import Measurements

BOUNDS = """
parameters { key: "instances_max" value { string_value: "4" } }
"""


async def test_model_takes_what_its_load_has_grown_by(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    hand = Hand(used_bytes=7)
    engine = MeasuredEngine(hand)
    engine.sizes["a"] = 300
    async with serving(tmp_path, 500, engine=engine, hand=hand) as (manager, _):
        await ask(manager, engine, "a")
        assert resident(manager) == {"a": 300}


async def test_model_that_is_measured_too_large_is_tried_again_alone(tmp_path: Path) -> None:
    """Whatever else took memory while it was measured: it is not refused until a restart."""
    for name in "ab":
        add_model(tmp_path, name)
    hand = Hand()
    engine = MeasuredEngine(hand)
    engine.sizes = {"a": 300, "b": 300}
    async with serving(tmp_path, 500, engine=engine, hand=hand) as (manager, _):
        await ask(manager, engine, "b")
        engine.on_enter["create", "a"] = lambda: setattr(hand, "used_bytes", hand.used_bytes + 999)
        await ask(manager, engine, "a")
        assert engine.ended[-1][:2] == ("a", Code.RESOURCE_EXHAUSTED)
        assert "takes 1299 bytes" in engine.ended[-1][2]
        assert made(engine, "a")[0].log[-1] == "close"
        assert (served(engine), resident(manager)) == ({"b"}, {"b": 300})

        hand.now_s += 59  # for a while that measurement stands
        await ask(manager, engine, "a")
        assert len(made(engine, "a")) == 1 and served(engine) == {"b"}

        hand.now_s += 2
        await ask(manager, engine, "a")
        assert (served(engine), resident(manager)) == ({"a"}, {"a": 300})


def test_measurement_that_is_confirmed_stands_longer_and_a_better_one_replaces_it() -> None:
    hand = Hand()
    measurements = Measurements(hand.clock)
    assert measurements.needed("a", 10, 500) == 10
    rests = []
    for _ in range(9):
        rests.append(measurements.refuse("a", 900))
        assert measurements.needed("a", 10, 500) == 900
        hand.now_s += rests[-1]
        assert measurements.needed("a", 10, 500) == 500
        assert measurements.needed("a", 501, 500) == 900  # its files alone are too large
    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    measurements.keep("a", 400)
    assert measurements.needed("a", 10, 500) == 400
    assert measurements.refuse("a", 900) == 60
    measurements.forget("a")
    assert measurements.needed("a", 10, 500) == 10


async def test_memory_that_others_leave_free_meanwhile_is_not_taken_from_the_growth(
    tmp_path: Path,
) -> None:
    for name in "ab":
        add_model(tmp_path, name)
    hand = Hand()
    engine = MeasuredEngine(hand)
    engine.sizes = {"a": 300, "b": 200}
    settings: dict[str, Any] = {"engine": engine, "hand": hand, "control_mode": "explicit"}
    async with serving(tmp_path, 500, **settings) as (manager, _):
        await manager.load("b")
        opening = engine.hold("open", "a")
        load = asyncio.create_task(manager.load("a"))
        assert await asyncio.to_thread(engine.entered["open", "a"].wait, 60)
        await manager.unload("b")
        await until_unloaded(manager, "b")
        opening.set()
        await load
        assert resident(manager) == {"a": 300}


async def test_version_whose_drain_was_not_in_time_counts_until_it_is_gone(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, config=takes(60))
    explicit: dict[str, Any] = {"hand": Hurried(), "control_mode": "explicit"}
    async with serving(tmp_path, 100, **explicit) as (manager, engine):
        await manager.load("a")
        engine.drains_in_time = False
        await manager.unload("a")
        await until_unloaded(manager, "a")
        assert resident(manager) == {"a": 60}
        with pytest.raises(ResourceExhaustedError, match="'b' takes 60 bytes.*60 are held"):
            await manager.load("b")
        await manager.leftovers.look()
        assert resident(manager) == {"a": 60}  # it runs on
        engine.drains_in_time = True
        await manager.leftovers.look()
        assert resident(manager) == {}
        await manager.load("b")
        assert resident(manager) == {"b": 60}


async def test_version_that_is_refused_and_does_not_end_counts_until_it_has(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    hand = Hand()
    engine = MeasuredEngine(hand)
    engine.sizes["a"] = 900
    engine.drains_in_time = False
    async with serving(tmp_path, 500, engine=engine, hand=hand) as (manager, _):
        await ask(manager, engine, "a")
        assert engine.ended[-1][:2] == ("a", Code.RESOURCE_EXHAUSTED)
        assert resident(manager) == {"a": 900}
        engine.drains_in_time = True
        await manager.leftovers.look()
        assert resident(manager) == {}


async def test_drain_that_fails_leaves_the_memory_taken(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(60))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        await manager.load("a")
        engine.fail["close", "a"] = InvalidArgumentError("no such luck")
        engine.drains_in_time = False
        await manager.unload("a")
        await until_unloaded(manager, "a")
        assert resident(manager) == {"a": 60}


async def test_load_that_fails_takes_nothing(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=takes(60))
    async with serving(tmp_path, 100, control_mode="explicit") as (manager, engine):
        engine.fail["create", "a"] = InvalidArgumentError("corrupt")
        with pytest.raises(CoreError, match="corrupt"):
            await manager.load("a")
        assert resident(manager) == {}


async def test_instances_that_come_and_go_take_their_part_of_the_budget(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=BOUNDS)
    add_model(tmp_path, "b", config=takes(100))
    hand = Hand()
    engine = MeasuredEngine(hand)
    engine.sizes["a"] = 200
    settings: dict[str, Any] = {"engine": engine, "hand": hand, "control_mode": "explicit"}
    async with serving(tmp_path, 500, **settings) as (manager, _):
        await manager.load("a")
        await manager.load("b")
        (scalable,) = manager.scalable()
        for _ in range(2):  # the second takes the place of the model that is idle
            engine.on_enter["add", "a"] = lambda: setattr(hand, "used_bytes", hand.used_bytes + 150)
            await scalable.add()
        assert (served(engine), resident(manager)) == ({"a"}, {"a": 500})
        with pytest.raises(ResourceExhaustedError, match="'a' takes 150 bytes"):
            await scalable.add()
        assert made(engine, "a")[0].log.count("add") == 2  # it was known what one takes
        await scalable.remove()
        assert resident(manager) == {"a": 350}


async def test_instance_that_turns_out_too_large_goes_again(tmp_path: Path) -> None:
    add_model(tmp_path, "a", config=BOUNDS)
    hand = Hand()
    engine = MeasuredEngine(hand)
    engine.sizes["a"] = 200
    settings: dict[str, Any] = {"engine": engine, "hand": hand, "control_mode": "explicit"}
    async with serving(tmp_path, 500, **settings) as (manager, _):
        await manager.load("a")
        (scalable,) = manager.scalable()
        engine.on_enter["add", "a"] = lambda: setattr(hand, "used_bytes", hand.used_bytes + 301)
        with pytest.raises(ResourceExhaustedError, match="budget is 500 bytes"):
            await scalable.add()
        assert made(engine, "a")[0].log[-2:] == ["add", "remove"]
        assert resident(manager) == {"a": 200}
