"""Telling a store how deployments fare: on a store that does what the test says."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.fake_store import FakeStore, deployment

from penstock.store.failures import StoreError
from penstock.store.records import HEARD_EVERY_S, DeployStatus
from penstock.store.reporter import StoreReporter


class World:
    """A reporter that has begun, whose pauses end when the test says so, or by a report."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.pauses: asyncio.Queue[float] = asyncio.Queue()
        self._ends: asyncio.Queue[None] = asyncio.Queue()
        self.reporter = StoreReporter(self.store, "prod", "s", self._is_set_within)

    async def _is_set_within(self, event: asyncio.Event, seconds: float) -> bool:
        self.pauses.put_nowait(seconds)
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._ends.get())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        return event.is_set()

    async def next_pause(self) -> float:
        """Ends a pause; how long the one is that follows."""
        self._ends.put_nowait(None)
        return await self.pauses.get()

    def heard(self) -> int:
        return self.store.heard.qsize()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    assert await made.reporter.close(30)


async def test_server_says_at_once_that_it_is_there_and_then_regularly(world: World) -> None:
    """At once: what it served before its restart is reported no second time."""
    world.reporter.start()
    assert await world.pauses.get() == HEARD_EVERY_S
    assert world.heard() == 1
    assert await world.next_pause() == HEARD_EVERY_S
    assert world.heard() == 2


async def test_what_fails_is_tried_again_soon_and_then_more_and_more_seldom(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.refusal = StoreError("it cannot be written")
    world.reporter.start()
    pauses = [await world.pauses.get()] + [await world.next_pause() for _ in range(11)]
    for pause, most in zip(pauses, (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300), strict=True):
        assert most / 2 <= pause <= most
    assert caplog.text.count("it cannot be written") == 1
    world.store.refusal = None
    assert await world.next_pause() == HEARD_EVERY_S
    assert world.heard() == 1
    world.store.refusal = StoreError("it cannot be written any more")
    assert await world.next_pause() <= 1
    assert "it cannot be written any more" in caplog.text


async def test_pauses_differ_from_server_to_server(world: World) -> None:
    world.store.refusal = StoreError("it cannot be written")
    other = World()
    other.store.refusal = world.store.refusal
    for each in (world, other):
        each.reporter.start()
    assert await world.pauses.get() != await other.pauses.get()
    assert await other.reporter.close(30)


async def test_report_ends_the_pause(world: World) -> None:
    world.reporter.start()
    await world.pauses.get()
    world.reporter.report(deployment(1, 1), DeployStatus.SERVING, digest="sha256:1")
    assert await world.pauses.get() == HEARD_EVERY_S
    assert world.store.reports == [(1, "SERVING", "")]
    assert world.reporter.unreported == 0
