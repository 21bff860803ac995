"""The scaler of instances: steps of one, within bounds, and no second step beside the first."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from penstock.errors import ResourceExhaustedError
from penstock.scaling.instances import InstanceScaler
from penstock.scaling.policy import PolicySettings


class FakeVersion:
    """A version whose counters a test moves."""

    model = "m"
    version = 1

    def __init__(self, bounds: tuple[int, int] = (1, 3)) -> None:
        self.key: object = self
        self.bounds = bounds
        self.instances = 1
        self.success = self.busy_ns = self.pending = 0
        self.is_loaded = True
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def stats(self) -> Mapping[str, Any]:
        if not self.is_loaded:
            return {}
        return {
            "success": {"count": self.success},
            "fail": {"count": 0},
            "rejected": {"queue_full": 0},
            "queue": {"ns": 0},
            "busy_ns": self.busy_ns,
            "background": {"busy_ns": 0},
            "pending": self.pending,
            "running": 0,
            "instances": self.instances,
            "oldest_age_ns": 0,
        }

    def work(self, seconds: float, requests: int = 100) -> None:
        """So many instance-seconds passed on requests."""
        self.success += requests
        self.busy_ns += int(seconds * 1e9)

    async def add(self) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.instances += 1

    async def remove(self) -> None:
        self.instances -= 1


class World:
    def __init__(self, version: FakeVersion, **settings: Any) -> None:
        self.now_s = 0.0
        policy = PolicySettings(down_window_s=2.0, **settings)
        self.scaler = InstanceScaler(lambda: [version], policy, 1.0, lambda: self.now_s)

    async def second(self) -> None:
        self.now_s += 1.0
        await asyncio.gather(*self.scaler.look())


async def test_load_adds_one_at_a_time_up_to_the_bound_and_its_end_removes_them() -> None:
    version = FakeVersion()
    world = World(version)
    await world.second()
    seen = []
    for _ in range(4):
        version.work(3.0)
        await world.second()
        seen.append(version.instances)
    assert seen == [2, 3, 3, 3]
    for _ in range(12):
        await world.second()
    assert version.instances == 1
    counts = {"added": 2, "removed": 2}
    assert world.scaler.stats() == {("m", 1, change): n for change, n in counts.items()}


async def test_change_under_way_is_the_only_one() -> None:
    version = FakeVersion()
    version.gate.clear()
    world = World(version)
    tasks = []
    for _ in range(5):
        version.work(3.0)
        world.now_s += 1.0
        tasks += world.scaler.look()
    assert len(tasks) == 1
    version.gate.set()
    await asyncio.gather(*tasks)
    assert version.instances == 2


async def test_instance_that_cannot_be_made_is_told_and_rested_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = FakeVersion()
    version.failure = ResourceExhaustedError("no thread")
    world = World(version)
    for _ in range(10):
        version.work(3.0)
        await world.second()
    assert world.scaler.stats() == {("m", 1, "failed"): 1}
    assert "stays at 1 instances, 2 were wanted: " in caplog.text
    assert "no thread" in caplog.text


async def test_version_that_is_unloaded_meanwhile_is_no_failure() -> None:
    version = FakeVersion()
    version.failure = ValueError("the version is closed")
    version.gate.clear()
    world = World(version)
    tasks = []
    for _ in range(3):
        version.work(3.0)
        world.now_s += 1.0
        tasks += world.scaler.look()
    version.is_loaded = False
    version.gate.set()
    await asyncio.gather(*tasks)
    assert world.scaler.stats() == {}
    assert world.scaler.look() == []
