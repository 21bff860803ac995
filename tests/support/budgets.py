"""A model manager under a memory budget, on an engine without a core."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fake_engine import FakeEngine, FakeVersion

from penstock.repository.manager import ModelManager
from penstock.repository.settings import RepositorySettings

_ENTRY = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'


def takes(size: int, *, pinned: bool = False) -> str:
    """The configuration of a model that says what it takes."""
    text = _ENTRY.format("memory_bytes", size)
    return text + (_ENTRY.format("memory_pinned", "true") if pinned else "")


@dataclass
class Hand:
    """A clock, and a memory, that a test sets."""

    now_s: float = 1000.0
    used_bytes: int = 0

    def clock(self) -> float:
        return self.now_s

    def measure(self) -> int:
        return self.used_bytes


class Hurried(Hand):
    """On its clock 20 seconds pass from one look to the next: whoever waits gives up soon."""

    def clock(self) -> float:
        self.now_s += 20.0
        return self.now_s


class MeasuredEngine(FakeEngine):
    """Opening a model takes what `sizes` says; closing it gives that back."""

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        self.hand = hand
        self.sizes: dict[str, int] = {}
        self.on_enter: dict[tuple[str, str], Callable[[], None]] = {}

    def enter(self, step: str, model: str) -> None:
        super().enter(step, model)
        if step == "create":
            self.hand.used_bytes += self.sizes.get(model, 0)
        if step == "close" and self.drains_in_time:
            self.hand.used_bytes -= self.sizes.get(model, 0)
        if then := self.on_enter.pop((step, model), None):
            then()


@asynccontextmanager
async def serving(
    repository: Path,
    budget: int,
    *,
    engine: FakeEngine | None = None,
    hand: Hand | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[ModelManager, FakeEngine]]:
    """One that has started; a model may be unloaded the moment it is loaded."""
    engine, hand = engine or FakeEngine(), hand or Hand()
    values = {"memory_budget_bytes": budget, "min_residency_s": 0.0, **settings}
    wanted = RepositorySettings(paths=(repository,), **values)
    manager = ModelManager(engine, wanted, measure=hand.measure, clock=hand.clock)
    try:
        await manager.start()
        yield manager, engine
    finally:
        await manager.close(5.0)


async def ask(manager: ModelManager, engine: FakeEngine, name: str) -> None:
    """A request waits for the model, and the manager hears of it."""
    engine.waits[name] = 1
    await manager.demand.load(name)
    engine.waits[name] = 0


def served(engine: FakeEngine) -> set[str]:
    """Names of what serves."""
    return {name for name, versions in engine.serving.items() if versions}


def resident(manager: ModelManager) -> dict[str, int]:
    """Bytes by model, as the budget counts them."""
    return dict((manager.memory() or {})["resident"])


def made(engine: FakeEngine, name: str) -> list[FakeVersion]:
    """Every version of the model that was ever made."""
    return [each for each in engine.created if each.spec.model_name == name]


async def until_unloaded(manager: ModelManager, name: str) -> None:
    """Returns once a model's drain is over, in time or not: nobody is told, so it is asked."""
    async with asyncio.timeout(60):
        while {e.state for e in await manager.index() if e.name == name} != {"UNAVAILABLE"}:
            pass
