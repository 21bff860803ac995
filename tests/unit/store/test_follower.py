"""Following an environment: on a store and a deployer that do what the test says."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from penstock.errors import FailedPreconditionError, StartupError
from penstock.store.failures import (
    NoRoomError,
    StoreError,
    StoreUnavailableError,
    UnknownEntryError,
)
from penstock.store.follower import FollowerSettings, StoreFollower
from penstock.store.records import HEARD_EVERY_S, Deployment, DeployStatus, Desired


def deployment(number: int, version: int, status: str = "REQUESTED", **more: Any) -> Deployment:
    made = Deployment(
        id=number,
        environment="prod",
        model="m",
        version=version,
        digest=f"sha256:{version}",
        kind="deploy",
        alias="",
        allow_breaking=False,
        status=status,
        reason="",
        actor="tester",
        requested_ms=0,
        settled_ms=None,
    )
    return replace(made, **more)


@dataclass
class FakeStore:
    generation_: int = 0
    wanted: list[Desired] = field(default_factory=list)
    is_gone: bool = False
    is_read_only: bool = False
    refusal: StoreError | None = None
    reports: list[tuple[int, str, str]] = field(default_factory=list)
    heard: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, *wanted: Desired) -> None:
        self.generation_ += 1
        self.wanted = list(wanted)

    def generation(self, environment: str) -> int:
        if self.is_gone:
            raise StoreUnavailableError("gone")
        return self.generation_

    def desired(self, environment: str) -> tuple[int, list[Desired]]:
        return self.generation_, self.wanted

    def environment_names(self) -> list[str]:
        return ["prod", "staging"]

    def report(
        self,
        deployment_id: int,
        server: str,
        status: DeployStatus,
        *,
        reason: str = "",
        digest: str = "",
    ) -> None:
        if self.is_gone:
            raise StoreUnavailableError("gone")
        if self.refusal is not None:
            raise self.refusal
        self.reports.append((deployment_id, status.value, reason))

    def hear(self, environment: str, server: str) -> None:
        if self.is_gone:
            raise StoreUnavailableError("gone")
        if self.is_read_only:
            raise StoreError("it cannot be written")
        self.heard.append((environment, server))


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
class Waits:
    """What is waited for but to be heard again does not end before it is set."""

    heard: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    again: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def is_set_within(self, event: asyncio.Event, seconds: float) -> bool:
        if seconds != HEARD_EVERY_S:
            return await event.wait()
        self.heard.put_nowait(None)
        await self.again.get()
        return event.is_set()

    async def next(self) -> None:
        """The time has come to be heard; returns when that was tried."""
        self.again.put_nowait(None)
        await self.heard.get()


@dataclass
class World:
    store: FakeStore = field(default_factory=FakeStore)
    deployer: FakeDeployer = field(default_factory=FakeDeployer)

    def __post_init__(self) -> None:
        settings = FollowerSettings(environment="prod", server="s", interval_s=3600.0)
        self.waits = Waits()
        self.follower = StoreFollower(self.store, self.deployer, settings, self.waits.is_set_within)

    async def polls(self) -> None:
        """Two looks with all they begin: what was done is reported by the second."""
        for _ in range(2):
            await self.follower.poll()
            while self.follower._busy:
                await asyncio.gather(*self.follower._busy.values())


@pytest.fixture
async def world() -> Any:
    made = World()
    yield made
    assert await made.follower.close(30)


async def test_server_says_that_it_is_there_at_once_and_on_however_seldom_it_looks(
    world: World,
) -> None:
    """At once: what it served before its restart is reported no second time."""
    world.store.ask(Desired(deployment(1, 1)))
    await world.follower.look()
    assert world.store.heard == []
    world.follower.start()
    await world.waits.heard.get()
    assert world.store.heard == [("prod", "s")]
    await world.waits.next()
    assert world.store.heard == [("prod", "s")] * 2


async def test_store_that_cannot_be_written_stops_nothing_and_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.is_read_only = True
    world.follower.start()
    await world.waits.heard.get()
    await world.waits.next()
    world.store.ask(Desired(deployment(1, 1)))
    await world.polls()
    assert world.deployer.tried == [(1, None)]
    assert world.follower.stats()["is_up"]
    told = "the store cannot be told that this server is there: it cannot be written"
    assert caplog.text.count(told) == 1
    world.store.is_read_only = False
    await world.waits.next()
    assert world.store.heard == [("prod", "s")]


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
    assert world.deployer.tried == [(2, 1), (1, None)]
    assert (2, "FAILED", "off") in world.store.reports


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
    world.store.refusal = UnknownEntryError("no such deployment")
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
