"""Telling a store how deployments fare: on a store that does what the test says."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.support.fake_store import FakeStore, deployment

from penstock.store.failures import StoreError
from penstock.store.records import HEARD_EVERY_S, Deployment, DeployStatus, Report
from penstock.store.reporter import StoreReporter

SERVED = deployment(1, 1, "SERVING", reports=(Report("s", "SERVING", "", "sha256:1", 0),))
"""By this server, as of when the store was read."""


@dataclass
class SlowStore(FakeStore):
    """One in which a report is under way until the test ends that."""

    begun: threading.Event = field(default_factory=threading.Event)
    ends: threading.Event = field(default_factory=threading.Event)

    def report(
        self,
        deployment_id: int,
        server: str,
        status: DeployStatus,
        *,
        reason: str = "",
        digest: str = "",
    ) -> None:
        self.begun.set()
        self.ends.wait()
        super().report(deployment_id, server, status, reason=reason, digest=digest)


class World:
    """A reporter that has begun, whose pauses end when the test says so, or by a report."""

    def __init__(self, store: FakeStore | None = None) -> None:
        self.store = store or FakeStore()
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

    def serves(self, target: Deployment) -> None:
        self.reporter.report(target, DeployStatus.SERVING, digest=target.digest)

    def waits(self, target: Deployment) -> None:
        self.reporter.report(target, DeployStatus.WAITING, reason="full")

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
    world.serves(deployment(1, 1))
    assert await world.pauses.get() == HEARD_EVERY_S
    assert world.store.reports == [(1, "SERVING", "")]
    assert world.reporter.unreported == 0


async def test_only_pauses_that_were_waited_out_make_the_next_one_longer(world: World) -> None:
    world.store.refusal = StoreError("it cannot be written")
    world.reporter.start()
    await world.pauses.get()
    for version in range(1, 10):
        world.serves(deployment(version, version))
        assert await world.pauses.get() <= 1
    assert await world.next_pause() >= 1
    assert await world.next_pause() >= 2
    world.reporter.wake()
    assert await world.pauses.get() <= 1


async def test_what_is_said_again_before_it_was_sent_ends_no_pause(world: World) -> None:
    world.store.refusal = StoreError("it cannot be written")
    world.reporter.start()
    await world.pauses.get()
    world.serves(deployment(1, 1))
    await world.pauses.get()
    for most in (2, 4, 8):
        world.serves(deployment(1, 1))
        assert most / 2 <= await world.next_pause() <= most


async def test_what_is_said_again_while_it_is_sent_is_sent_once() -> None:
    store = SlowStore()
    world = World(store)
    world.serves(deployment(1, 1))
    world.reporter.start()
    await asyncio.to_thread(store.begun.wait)
    world.serves(deployment(1, 1))
    store.ends.set()
    assert await world.pauses.get() == HEARD_EVERY_S
    assert world.reporter.unreported == 0
    assert store.reports == [(1, "SERVING", "")]
    assert await world.reporter.close(30)


async def test_old_report_that_was_not_sent_gives_way_to_a_new_one(world: World) -> None:
    world.waits(SERVED)
    world.serves(SERVED)
    world.reporter.start()
    assert await world.pauses.get() == HEARD_EVERY_S
    assert world.store.reports == [(1, "SERVING", "")]


async def test_old_report_that_is_being_sent_is_followed_by_a_new_one() -> None:
    store = SlowStore()
    world = World(store)
    world.waits(SERVED)
    world.reporter.start()
    await asyncio.to_thread(store.begun.wait)
    world.serves(SERVED)
    store.ends.set()
    while world.reporter.unreported:
        await world.pauses.get()
    assert store.reports == [(1, "WAITING", "full"), (1, "SERVING", "")]
    assert await world.reporter.close(30)


async def test_old_report_that_was_sent_since_the_store_was_read_is_followed_by_a_new_one(
    world: World,
) -> None:
    world.reporter.start()
    await world.pauses.get()
    world.waits(SERVED)
    await world.pauses.get()
    world.serves(SERVED)
    assert world.reporter.unreported == 1
    await world.pauses.get()
    assert world.store.reports == [(1, "WAITING", "full"), (1, "SERVING", "")]


async def test_what_the_store_knows_is_not_said_and_what_it_lost_is_said_again(
    world: World,
) -> None:
    world.serves(SERVED)
    assert world.reporter.unreported == 0
    lost = deployment(1, 1)
    for _ in range(2):  # as when it was put back to what it was before
        world.serves(lost)
        assert await world.reporter.tell()
    world.serves(SERVED)
    assert world.reporter.unreported == 0
    assert world.store.reports == 2 * [(1, "SERVING", "")]


async def test_report_that_cannot_be_written_holds_no_other_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.unfit = {1}
    for number in (1, 2, 3):
        world.serves(deployment(number, number))
    world.reporter.start()
    assert await world.pauses.get() <= 1
    assert world.store.reports == [(2, "SERVING", ""), (3, "SERVING", "")]
    assert world.reporter.unreported == 1
    assert "surrogates not allowed" in caplog.text
    world.store.unfit = set()
    assert await world.next_pause() == HEARD_EVERY_S
    assert world.store.reports[2:] == [(1, "SERVING", "")]


async def test_store_that_goes_away_is_not_asked_for_each_report() -> None:
    store = SlowStore()
    world = World(store)
    for number in (1, 2, 3):
        world.serves(deployment(number, number))
    world.reporter.start()
    await asyncio.to_thread(store.begun.wait)
    store.is_gone = True
    store.ends.set()
    assert await world.pauses.get() <= 1
    assert store.refused.qsize() == 1
    assert world.reporter.unreported == 3
    assert await world.reporter.close(30)
