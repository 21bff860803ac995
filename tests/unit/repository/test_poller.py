"""Polling, with snapshots made up, models that only write down what they are told, and no clock."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock.errors import AbortedError, InternalError, StartupError
from penstock.repository.poller import RepositoryPoller
from penstock.repository.snapshot import Entry, ModelSnapshot, Root, Snapshot

WAIT_S = 30


def model(size: int) -> ModelSnapshot:
    return ModelSnapshot((Entry("0:m/1/model.onnx", "file", size=size),))


@dataclass
class FakeScanner:
    """Shows `models`, or raises `error`; waits for `gate` where there is one."""

    models: dict[str, ModelSnapshot] = field(default_factory=dict)
    identity: int = 1
    error: Exception | None = None
    gate: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)

    def scan(self) -> Snapshot:
        self.entered.set()
        if self.gate is not None and not self.gate.wait(WAIT_S):
            raise TimeoutError("nobody opened the gate")
        if self.error is not None:
            raise self.error
        root = Root(Path("r"), (1, self.identity), len(self.models))
        return Snapshot(dict(self.models), (root,))

    def scan_model(self, name: str) -> ModelSnapshot:
        return self.models.get(name, ModelSnapshot())


@dataclass
class FakeModels:
    """Writes down what it is told. `failure` ends a load; `meanwhile` happens during one."""

    told: list[tuple[str, ...]] = field(default_factory=list)
    failure: Exception | None = None
    meanwhile: Callable[[], object] = lambda: None
    gate: asyncio.Event | None = None

    async def follow(self, name: str, is_current: Callable[[], bool]) -> None:
        self.told.append(("load", name))
        if self.gate is not None:
            await self.gate.wait()
        self.meanwhile()
        if self.failure is not None:
            raise self.failure
        if not is_current():
            raise AbortedError("changed")

    async def refuse(self, name: str, reason: str) -> None:
        self.told.append(("refuse", name, reason))

    async def withdraw(self, name: str) -> None:
        self.told.append(("unload", name))


class FakeClock:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.waits: asyncio.Queue[float] = asyncio.Queue()
        self._passed = asyncio.Queue[None]()

    def pass_time(self) -> None:
        self._passed.put_nowait(None)

    async def is_set_within(self, event: asyncio.Event, seconds: float) -> bool:
        self.waits.put_nowait(seconds)
        passed = asyncio.create_task(self._passed.get())
        stopped = asyncio.create_task(event.wait())
        await asyncio.wait({passed, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (passed, stopped):
            task.cancel()
        return event.is_set()


@dataclass
class World:
    scanner: FakeScanner
    models: FakeModels
    clock: FakeClock
    poller: RepositoryPoller

    async def polls(self, count: int = 2) -> list[tuple[str, ...]]:
        """Polls, with what each begins done before the next; what the models were told."""
        self.models.told.clear()
        for _ in range(count):
            await self.poller.poll()
            await self.idle()
        return list(self.models.told)

    async def idle(self) -> None:
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*others, return_exceptions=True)


def world_of(**models: ModelSnapshot) -> World:
    scanner, fake, clock = FakeScanner(dict(models)), FakeModels(), FakeClock()
    return World(scanner, fake, clock, RepositoryPoller(fake, scanner, 7.0, clock.is_set_within))


async def started(**models: ModelSnapshot) -> World:
    """After the first look; the models seen in it are those that the start loads."""
    world = world_of(**models)
    await world.poller.look()
    return world


async def test_what_the_start_loaded_is_left_alone() -> None:
    world = await started(m=model(1))
    assert await world.polls(3) == []


async def test_change_during_the_start_is_followed() -> None:
    world = await started(m=model(1))
    world.scanner.models["m"] = model(2)
    assert await world.polls(2) == [("load", "m")]


async def test_new_model_is_loaded_by_the_second_poll_that_sees_it() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    assert await world.polls(1) == []
    assert await world.polls(1) == [("load", "m")]
    assert await world.polls(3) == []


async def test_model_that_grows_is_loaded_when_it_has_stopped() -> None:
    world = await started()
    for size in range(5):
        world.scanner.models["m"] = model(size)
        assert await world.polls(1) == []
    assert await world.polls(1) == [("load", "m")]


async def test_model_that_is_gone_is_withdrawn_by_the_second_poll() -> None:
    world = await started(m=model(1), other=model(1))
    del world.scanner.models["m"]
    assert await world.polls(1) == []
    assert await world.polls(3) == [("unload", "m")]
    world.scanner.models["m"] = model(1)
    assert await world.polls(2) == [("load", "m")]


async def test_failed_load_is_tried_again_only_after_a_change() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    world.models.failure = InternalError("no")
    assert await world.polls(4) == [("load", "m")]
    world.scanner.models["m"] = model(2)
    assert await world.polls(4) == [("load", "m")]


async def test_change_during_a_load_is_loaded_again() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    world.models.meanwhile = lambda: world.scanner.models.update(m=model(2))
    assert await world.polls(2) == [("load", "m")]
    assert await world.polls(2) == [("load", "m")]
    assert await world.polls(2) == []


async def test_change_there_and_back_during_a_failed_load_is_loaded_again() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    world.models.meanwhile = lambda: world.scanner.models.update(m=model(2))
    world.models.failure = InternalError("the file is cut off")
    assert await world.polls(2) == [("load", "m")]
    world.models.failure, world.models.meanwhile = None, lambda: None
    world.scanner.models["m"] = model(1)
    assert await world.polls(2) == [("load", "m")]


async def test_model_that_looks_as_before_after_an_aborted_load_is_loaded_again() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    world.models.failure = AbortedError("it had been moved away, and is back")
    assert await world.polls(2) == [("load", "m")]
    world.models.failure = None
    assert await world.polls(2) == [("load", "m")]
    assert await world.polls(2) == []


async def test_scan_that_ends_after_the_stop_changes_nothing() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    assert await world.polls(1) == []
    world.poller.stop()
    assert await world.polls(1) == []


async def test_defect_in_a_load_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    world.models.failure = ZeroDivisionError("oops")
    assert await world.polls(4) == [("load", "m")]
    assert caplog.text.count("oops") == 1


async def test_model_that_cannot_be_told_is_refused_with_its_fault() -> None:
    world = await started(m=model(1))
    world.scanner.models["m"] = ModelSnapshot(fault="too large")
    assert await world.polls(3) == [("refuse", "m", "too large")]
    world.scanner.models["m"] = model(1)
    assert await world.polls(3) == [("load", "m")]


async def test_slow_load_does_not_hold_up_other_models() -> None:
    world = await started()
    world.models.gate = asyncio.Event()
    world.scanner.models["slow"] = model(1)
    await world.poller.poll()
    await world.poller.poll()
    world.scanner.models["quick"] = model(1)
    world.scanner.models["slow"] = model(2)
    for _ in range(3):  # the third lets what the second began say so
        await world.poller.poll()
    assert world.models.told == [("load", "slow"), ("load", "quick")]
    world.models.gate.set()
    await world.idle()
    assert await world.polls(1) == [("load", "slow")]


async def test_repository_that_cannot_be_read_changes_nothing_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    world = await started(m=model(1))
    world.scanner.error = StartupError("cannot read model repository 'r': gone")
    assert await world.polls(5) == []
    assert caplog.text.count("cannot read model repository 'r': gone") == 1
    world.scanner.error = None
    assert await world.polls(2) == []
    assert caplog.text.count("can be read again") == 1


async def test_mount_that_vanishes_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = await started(m=model(1))
    mounted = dict(world.scanner.models)
    world.scanner.models.clear()
    world.scanner.identity = 2
    assert await world.polls(5) == []
    assert caplog.text.count("'r' is not mounted any more") == 1
    world.scanner.models, world.scanner.identity = mounted, 1
    assert await world.polls(2) == []


async def test_repository_emptied_by_hand_is_followed() -> None:
    world = await started(m=model(1))
    world.scanner.models.clear()
    assert await world.polls(3) == [("unload", "m")]


async def test_defect_in_a_scan_does_not_end_the_polling(caplog: pytest.LogCaptureFixture) -> None:
    world = await started()
    world.scanner.error = ZeroDivisionError("oops")
    assert await world.polls(3) == []
    assert caplog.text.count("ZeroDivisionError: oops") == 1
    world.scanner.error = None
    world.scanner.models["m"] = model(1)
    assert await world.polls(2) == [("load", "m")]


async def test_first_look_tells_of_a_repository_that_cannot_be_read() -> None:
    world = world_of()
    world.scanner.error = StartupError("cannot read")
    with pytest.raises(StartupError):
        await world.poller.look()
    assert await world.poller.close(WAIT_S)


async def test_polls_come_an_interval_apart_until_stopped() -> None:
    world = await started()
    world.scanner.models["m"] = model(1)
    world.poller.start()
    for _ in range(3):
        assert await world.clock.waits.get() == 7.0
        world.clock.pass_time()
    assert await world.clock.waits.get() == 7.0
    world.poller.stop()
    await world.idle()
    assert world.clock.waits.empty()
    assert world.models.told == [("load", "m")]
    assert await world.poller.close(WAIT_S)


async def test_stop_wakes_a_poller_that_waits() -> None:
    scanner, models = FakeScanner(), FakeModels()
    poller = RepositoryPoller(models, scanner, 86400.0)
    await poller.look()
    poller.start()
    assert await poller.close(WAIT_S)


async def test_close_tells_of_a_scan_that_hangs() -> None:
    world = await started()
    world.scanner.gate = threading.Event()
    world.scanner.entered.clear()
    poll = asyncio.create_task(world.poller.poll())
    assert await asyncio.to_thread(world.scanner.entered.wait, WAIT_S)
    assert await world.poller.close(0) is False
    world.scanner.gate.set()
    assert await world.poller.close(WAIT_S) is True
    await poll
