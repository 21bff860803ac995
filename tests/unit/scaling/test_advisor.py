"""Rounds in which something is wrong: invented models, a model that cannot be decided, a defect."""

import pytest

from penstock.errors import UnavailableError
from penstock.scaling import advisor as module
from penstock.scaling.advisor import Advisor
from penstock.scaling.fleet import Fleet, FleetOptions
from penstock.scaling.http_get import Target
from penstock.scaling.policy import Decision, PolicySettings, PolicyState, decide
from penstock.scaling.signals import ModelSignals
from penstock.scaling.triggers import Trigger


class World:
    """One replica with these models; a clock by hand."""

    def __init__(self, *models: str) -> None:
        self.models = models
        self.now_s = 100.0
        self.fleet = Fleet(
            FleetOptions(replicas=(("a", 8002),)), ask=self.ask, look_up=self.look_up
        )
        self.advisor = Advisor(self.fleet, PolicySettings(), lambda: self.now_s)

    async def look_up(self, host: str, port: int) -> list[Target]:
        return [(host, port)]

    async def ask(self, target: Target, path: str) -> str:
        return "".join(
            f'penstock_instances{{model="{name}",version="1"}} 1\n' for name in self.models
        )

    async def round(self) -> None:
        self.now_s += 1
        await self.advisor.round()


def of(model: str) -> Trigger:
    return Trigger(model, "replicas", 1.0)


async def test_invented_models_push_no_known_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_MODELS", 3)
    world = World("x", "y")
    await world.round()
    world.models = ("a", "b", "c", "x", "y")
    await world.round()
    told = {each.signals.model for each in world.advisor.advice(of(""))}
    assert told == {"x", "y", "a"}


async def test_model_that_cannot_be_decided_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World("a", "m", "z")
    await world.round()

    def broken(
        settings: PolicySettings, state: PolicyState, signals: ModelSignals, now_s: float
    ) -> tuple[Decision, PolicyState]:
        if signals.model == "m":
            raise ValueError("cannot convert float NaN to integer")
        return decide(settings, state, signals, now_s)

    monkeypatch.setattr(module, "decide", broken)
    world.models = ("a", "m", "new", "z")
    for _ in range(2):
        await world.round()
    assert world.advisor.advice(of("new"))[0].decision.replicas == 1
    for trigger in (of("m"), of("")):
        with pytest.raises(UnavailableError, match="model 'm' cannot be decided: ValueError"):
            world.advisor.advice(trigger)
    assert caplog.text.count("model m cannot be decided") == 1
    monkeypatch.setattr(module, "decide", decide)
    await world.round()
    assert world.advisor.advice(of("m"))[0].decision.replicas == 1


async def test_nothing_is_known_after_a_round_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World("m")
    await world.round()
    changed = world.advisor.next_round()

    def broken(now_s: float) -> dict[str, ModelSignals]:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(world.fleet, "signals", broken)
        with pytest.raises(RuntimeError):
            await world.round()
    assert changed.is_set()
    assert not world.advisor.is_known
    with pytest.raises(UnavailableError, match="the last round failed: RuntimeError"):
        world.advisor.advice(of("m"))
    await world.round()
    assert world.advisor.advice(of("m"))[0].decision.replicas == 1
