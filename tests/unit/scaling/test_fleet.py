"""Who belongs to a fleet, who answers, who is missing: without sockets, with a clock by hand."""

from dataclasses import dataclass, field

import pytest

from penstock.errors import NotFoundError, UnavailableError
from penstock.scaling.advisor import Advisor
from penstock.scaling.fleet import Fleet, FleetOptions
from penstock.scaling.http_get import FetchError, Target
from penstock.scaling.policy import PolicySettings
from penstock.scaling.triggers import Trigger

NAME = ("penstock.svc", 8002)
M = Trigger("m", "replicas", 1.0)


@dataclass
class World:
    """Addresses of the name, what each replica says, and the time."""

    members: list[str] = field(default_factory=list)
    pending: dict[str, float] = field(default_factory=dict)
    name_fault: str = ""
    now_s: float = 100.0

    def fleet(self, **options: float) -> Fleet:
        settings = FleetOptions(replicas=(NAME,), **options)  # type: ignore[arg-type]
        return Fleet(settings, ask=self.ask, look_up=self.look_up)

    async def look_up(self, host: str, port: int) -> list[Target]:
        if self.name_fault:
            raise FetchError(self.name_fault)
        return [(each, port) for each in self.members]

    async def ask(self, target: Target, path: str) -> str:
        if target[0] not in self.pending:
            raise FetchError("refused")
        labels = '{model="m",version="1"}'
        pending = self.pending[target[0]]
        return f"penstock_pending_requests{labels} {pending}\npenstock_instances{labels} 1\n"

    def clock(self) -> float:
        return self.now_s

    async def round(self, fleet: Fleet, passes_s: float = 1.0) -> None:
        self.now_s += passes_s
        await fleet.ask(self.clock)


async def test_every_address_of_a_name_is_a_replica() -> None:
    world = World(["a", "b"], {"a": 1, "b": 2})
    fleet = world.fleet()
    await world.round(fleet)
    signals = fleet.signals(world.now_s)["m"]
    assert (signals.replicas, signals.pending, signals.missing) == (2, 3, 0)


async def test_replica_that_does_not_answer_is_missing_until_it_is_forgotten() -> None:
    world = World(["a", "b"], {"a": 1, "b": 2})
    fleet = world.fleet(stale_s=5, forget_s=60)
    await world.round(fleet)
    del world.pending["b"]
    await world.round(fleet, 5)
    assert fleet.counts(world.now_s) == (2, 0)  # its last answer is still good
    await world.round(fleet, 1)
    assert fleet.counts(world.now_s) == (1, 1)
    await world.round(fleet, 60)
    assert fleet.counts(world.now_s) == (1, 0)
    world.pending["b"] = 2
    await world.round(fleet)
    assert fleet.counts(world.now_s) == (2, 0)


async def test_replica_that_left_its_name_counts_while_it_answers() -> None:
    world = World(["a", "b"], {"a": 1, "b": 2})
    fleet = world.fleet(stale_s=5)
    await world.round(fleet)
    world.members = ["a"]
    await world.round(fleet)
    assert fleet.counts(world.now_s) == (2, 0)
    del world.pending["b"]
    for _ in range(2):
        await world.round(fleet)
    assert fleet.counts(world.now_s) == (1, 0)


async def test_name_that_cannot_be_looked_up_keeps_its_replicas() -> None:
    world = World(["a"], {"a": 1})
    fleet = world.fleet()
    await world.round(fleet)
    world.name_fault = "try again"
    await world.round(fleet)
    assert fleet.is_known(world.now_s)
    assert fleet.faults() == ["penstock.svc: try again"]


async def test_fleet_that_was_never_reached_is_not_known() -> None:
    world = World(name_fault="try again")
    fleet = world.fleet()
    await world.round(fleet)
    assert not fleet.is_known(world.now_s)
    world.name_fault = ""
    await world.round(fleet)
    assert fleet.is_known(world.now_s)  # the name has no address: there is no replica


async def test_fault_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    world = World(["a"])
    fleet = world.fleet()
    with caplog.at_level("INFO"):
        for _ in range(3):
            await world.round(fleet)
        world.pending["a"] = 0
        for _ in range(3):
            await world.round(fleet)
    assert [each.message for each in caplog.records] == [
        "a:8002 does not answer as it should: refused",
        "a:8002 answers again",
    ]


async def test_advice_is_an_error_while_nobody_answers_and_comes_back() -> None:
    world = World(["a"], {"a": 1})
    advisor = Advisor(world.fleet(stale_s=5), PolicySettings(), world.clock)
    with pytest.raises(UnavailableError, match="none was asked yet"):
        advisor.advice(M)
    await advisor.round()
    assert advisor.advice(M)[0].decision.replicas == 1
    world.pending.clear()
    world.now_s += 6
    await advisor.round()
    with pytest.raises(UnavailableError, match=r"no replica answers: a:8002: refused"):
        advisor.advice(M)


async def test_model_that_was_unloaded_everywhere_is_unknown_once_it_is_idle() -> None:
    world = World(["a"], {"a": 1})
    settings = PolicySettings(min_replicas=0, idle_s=60)
    fleet = world.fleet()
    advisor = Advisor(fleet, settings, world.clock)
    await advisor.round()

    async def ask(target: Target, path: str) -> str:
        return 'penstock_instances{model="other",version="1"} 1\n'

    fleet._ask = ask
    world.now_s += 30
    await advisor.round()
    assert advisor.is_active(M)
    world.now_s += 60
    await advisor.round()
    with pytest.raises(NotFoundError, match="none of 1 replicas has model 'm'"):
        advisor.is_active(M)
