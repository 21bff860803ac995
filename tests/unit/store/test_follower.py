"""Following an environment: on a store and a deployer that do what the test says."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.fake_store import FakeStore, deployment

from penstock.errors import FailedPreconditionError, StartupError
from penstock.store.failures import NoRoomError, StoreError, StoreUnavailableError
from penstock.store.follower import FollowerSettings, StoreFollower
from penstock.store.records import Deployment, Desired
from penstock.store.reporter import StoreReporter


@dataclass
class FakeDeployer:
    fail: dict[int, Exception] = field(default_factory=dict)
    tried: list[tuple[int, int | None]] = field(default_factory=list)
    missing: frozenset[str] = frozenset()
    withdrawn: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def deploy(self, deployment: Deployment, previous: Deployment | None) -> str:
        self.tried.append((deployment.version, previous.version if previous else None))
        if self.gate is not None:
            await self.gate.wait()
        if deployment.version in self.fail:
            raise self.fail[deployment.version]
        return deployment.digest

    async def withdraw(self, model: str) -> None:
        self.withdrawn.append(model)

    def set_missing(self, models: frozenset[str]) -> None:
        self.missing = models


@dataclass
class World:
    store: FakeStore = field(default_factory=FakeStore)
    deployer: FakeDeployer = field(default_factory=FakeDeployer)

    def __post_init__(self) -> None:
        settings = FollowerSettings(environment="prod", interval_s=3600.0)
        self.reporter = StoreReporter(self.store, "prod", "s", lambda event, _: event.wait())
        self.follower = StoreFollower(self.store, self.deployer, settings, self.reporter)

    async def polls(self) -> None:
        """Two looks with all they begin, and what came of it is reported."""
        for _ in range(2):
            await self.follower.poll()
            while self.follower._busy:
                await asyncio.gather(*self.follower._busy.values())
        await self.reporter.tell()


@pytest.fixture
async def world() -> Any:
    made = World()
    yield made
    assert await made.follower.close(30)


async def test_nothing_is_asked_for_twice(world: World) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    await world.polls()
    assert world.deployer.tried == [(1, None)]
    assert world.store.reports == [(1, "SERVING", "")]


async def test_environment_without_deployments_is_told_with_those_that_there_are(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.follower.look()
    told = "nothing is deployed to environment 'prod' yet; other environments of the store: "
    assert f"{told}'staging'" in caplog.text


async def test_failure_is_reported_and_the_old_version_serves_on(world: World) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    world.deployer.fail[2] = FailedPreconditionError("failed to load 'm', it is off")
    world.store.ask(Desired(deployment(2, 2), deployment(1, 1, "SERVING")))
    await world.polls()
    assert world.deployer.tried == [(1, None), (2, 1)]
    assert world.store.reports[-1] == (2, "FAILED", "it is off")
    assert world.follower.stats()["serving"] == {"m": (1, "sha256:1")}
    assert world.deployer.missing == frozenset()


async def test_start_falls_back_to_what_served(world: World) -> None:
    world.deployer.fail[2] = FailedPreconditionError("off")
    world.store.ask(Desired(deployment(2, 2), deployment(1, 1, "SERVING")))
    await world.follower.look()
    world.follower.start()
    assert world.deployer.tried == [(2, 1), (1, None)]
    assert await asyncio.to_thread(world.store.told.get) == (2, "FAILED", "off")


async def test_start_fails_when_what_should_serve_does_not(world: World) -> None:
    world.deployer.fail[1] = FailedPreconditionError("off")
    world.store.ask(Desired(deployment(1, 1, "SERVING")))
    with pytest.raises(StartupError, match="m@1 cannot be served: off"):
        await world.follower.look()
    assert world.deployer.missing == {"m"}
    assert world.store.reports == [(1, "FAILED", "off")]


async def test_start_fails_without_the_store(world: World) -> None:
    world.store.is_gone = True
    with pytest.raises(StartupError, match="gone"):
        await world.follower.look()


async def test_version_that_another_server_refused_is_given_up(world: World) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    world.store.ask(Desired(deployment(2, 2), deployment(1, 1, "SERVING")))
    await world.polls()
    world.store.ask(Desired(deployment(1, 1, "SERVING")))
    await world.polls()
    assert [version for version, _ in world.deployer.tried] == [1, 2, 1]
    assert world.follower.stats()["serving"] == {"m": (1, "sha256:1")}


async def test_same_version_again_is_reported_and_not_loaded(world: World) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    world.store.ask(Desired(deployment(2, 1), deployment(1, 1, "SERVING")))
    await world.polls()
    assert world.deployer.tried == [(1, None)]
    assert world.store.reports == [(1, "SERVING", ""), (2, "SERVING", "")]


async def test_reports_wait_for_the_store(world: World) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.follower.poll()
    world.store.is_gone = True
    await world.polls()
    assert world.store.reports == []
    assert not world.follower.stats()["is_up"] and world.follower.stats()["unreported"] == 1
    world.store.is_gone = False
    await world.polls()
    assert world.store.reports == [(1, "SERVING", "")]
    assert world.follower.stats()["is_up"]


async def test_reports_are_tried_again_when_the_store_answers_again(world: World) -> None:
    world.store.is_gone = True
    world.follower.start()
    await world.follower.poll()
    await asyncio.to_thread(world.store.refused.get)
    world.store.is_gone = False
    await world.follower.poll()
    assert await asyncio.to_thread(world.store.heard.get) == ("prod", "s")


async def test_store_that_cannot_be_written_holds_no_deployment_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.refusal = StoreError("it cannot be written")
    for version in (1, 2):
        world.store.ask(Desired(deployment(version, version)))
        await world.polls()
    assert [version for version, _ in world.deployer.tried] == [1, 2]
    assert world.follower.stats()["is_up"] and world.follower.stats()["unreported"] == 2
    told = "the store cannot be told how this server fares, nor that it is there: it cannot be w"
    assert caplog.text.count(told) == 1
    world.store.refusal = None
    await world.polls()
    assert world.store.reports == [(1, "SERVING", ""), (2, "SERVING", "")]


async def test_store_that_is_long_in_writing_holds_no_deployment_back(world: World) -> None:
    world.store.gate = threading.Event()
    try:
        world.follower.start()
        for version in (1, 2):
            world.store.ask(Desired(deployment(version, version)))
            await world.follower.poll()
            await asyncio.gather(*world.follower._busy.values())
        assert world.follower.stats()["serving"] == {"m": (2, "sha256:2")}
        assert world.follower.stats()["unreported"] == 2
    finally:
        world.store.gate.set()


async def test_store_that_is_long_in_writing_holds_no_start_back(world: World) -> None:
    world.store.gate = threading.Event()
    world.deployer.fail[1] = NoRoomError("full")
    world.store.ask(Desired(deployment(1, 1)))
    try:
        async with asyncio.timeout(30):
            await world.follower.look()
        world.follower.start()
    finally:
        world.store.gate.set()
    assert await asyncio.to_thread(world.store.told.get) == (1, "WAITING", "full")
    assert world.store.heard.qsize() == 1


@pytest.mark.parametrize(
    "error",
    [
        FailedPreconditionError("golden request 'a' failed: shutting down"),
        NoRoomError("full"),
        StoreUnavailableError("gone"),
        ZeroDivisionError(),
    ],
)
async def test_failure_while_the_server_stops_is_none_of_the_deployment(
    world: World, error: Exception
) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    world.follower.start()
    world.deployer.gate, world.deployer.fail[2] = asyncio.Event(), error
    world.store.ask(Desired(deployment(2, 2), deployment(1, 1, "SERVING")))
    await world.follower.poll()
    world.follower.stop()
    world.deployer.gate.set()
    await asyncio.gather(*world.follower._busy.values())
    assert world.deployer.tried == [(1, None), (2, 1)]
    assert world.follower.stats()["is_up"] and world.follower.stats()["unreported"] == 0
    assert world.follower.stats()["deployments"] == {"done": 1, "failed": 0}
    assert world.store.reports == [(1, "SERVING", "")]


async def test_what_was_said_of_deployments_that_are_over_is_forgotten(world: World) -> None:
    for number in range(1, 9):
        world.store.ask(Desired(deployment(number, number), deployment(number - 1, 1)))
        await world.polls()
    assert set(world.reporter._said) == {7, 8}


async def test_deployment_is_tried_again_when_its_bytes_could_not_be_reached(world: World) -> None:
    world.deployer.fail[1] = StoreUnavailableError("no artifacts")
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    assert world.store.reports == [] and not world.follower.stats()["is_up"]
    del world.deployer.fail[1]
    await world.polls()
    assert world.store.reports == [(1, "SERVING", "")]
    assert world.follower.stats()["is_up"]


async def test_start_without_bytes_is_not_ready_and_is_tried_again(world: World) -> None:
    world.deployer.fail[1] = StoreUnavailableError("no artifacts")
    world.store.ask(Desired(deployment(1, 1, "SERVING")))
    await world.follower.look()
    assert world.deployer.missing == {"m"}
    del world.deployer.fail[1]
    await world.polls()
    assert world.deployer.missing == frozenset()
    assert world.follower.stats()["serving"] == {"m": (1, "sha256:1")}


async def test_start_without_the_newest_bytes_serves_what_served(world: World) -> None:
    world.deployer.fail[2] = StoreUnavailableError("no artifacts")
    world.store.ask(Desired(deployment(2, 2), deployment(1, 1, "SERVING")))
    await world.follower.look()
    assert world.follower.stats()["serving"] == {"m": (1, "sha256:1")}
    assert world.deployer.missing == frozenset()
    world.store.ask(Desired(deployment(1, 1, "SERVING")))  # the other was given up
    await world.polls()
    assert world.follower.stats()["is_up"]


async def test_host_without_room_says_so_once_and_fails_nothing(world: World) -> None:
    world.deployer.fail[1] = NoRoomError("full, 3 free")
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    world.deployer.fail[1] = NoRoomError("full, 2 free")
    await world.polls()
    assert world.store.reports == [(1, "WAITING", "full, 3 free")]
    del world.deployer.fail[1]
    await world.polls()
    assert world.store.reports[1:] == [(1, "SERVING", "")]


async def test_report_is_dropped_only_where_there_is_no_such_deployment(world: World) -> None:
    world.store.refusal = StoreError("disk full")
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    assert world.follower.stats()["unreported"] == 1
    world.store.refusal, world.store.unknown = None, {1}
    await world.polls()
    assert world.follower.stats()["unreported"] == 0 and world.store.reports == []


async def test_withdrawn_model_is_taken_away_once(world: World) -> None:
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    world.store.ask(Desired(deployment(2, 1, "WITHDRAWN")))
    await world.polls()
    await world.polls()
    assert world.deployer.withdrawn == ["m"]
    assert world.follower.stats()["serving"] == {}
    world.store.ask(Desired(deployment(3, 1)))
    await world.polls()
    assert world.follower.stats()["serving"] == {"m": (1, "sha256:1")}


async def test_request_during_a_deployment_is_taken_up_after_it(world: World) -> None:
    world.deployer.gate = asyncio.Event()
    world.store.ask(Desired(deployment(1, 1)))
    await world.follower.poll()
    world.store.ask(Desired(deployment(2, 2)))
    await world.follower.poll()
    assert [version for version, _ in world.deployer.tried] in ([], [1])
    world.deployer.gate.set()
    while world.follower._busy:
        await asyncio.gather(*world.follower._busy.values())
    await world.polls()
    assert [version for version, _ in world.deployer.tried] == [1, 2]
    assert world.follower.stats()["serving"] == {"m": (2, "sha256:2")}


async def test_defect_is_a_failed_deployment(world: World) -> None:
    world.deployer.fail[1] = ZeroDivisionError()
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    assert world.store.reports == [(1, "FAILED", "unexpected ZeroDivisionError")]
