"""The policy as a function: Little's law, queue age, windows, zero, bounds."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import EXAMPLES

from penstock.scaling.policy import Decision, PolicySettings, PolicyState, decide, recommend
from penstock.scaling.signals import ModelSignals

SETTINGS = PolicySettings(max_replicas=20)

finite = st.floats(0, 1e12)
signals_of_any_kind = st.builds(
    ModelSignals,
    model=st.just("m"),
    replicas=st.integers(0, 1000),
    missing=st.integers(0, 1000),
    instances=finite,
    arrival_rate=finite,
    service_s=st.none() | st.floats(1e-9, 1e6),
    pending=finite,
    running=finite,
    queue_age_s=finite,
    utilisation=st.floats(0, 1),
    rejected_rate=finite,
    waiting=finite,
)
settings_of_any_kind = st.builds(
    PolicySettings,
    min_replicas=st.integers(0, 10),
    max_replicas=st.integers(10, 100),
    target_utilisation=st.floats(0.01, 1),
    target_queue_age_s=st.floats(1e-3, 100),
    drain_s=st.floats(0.1, 1000),
    up_window_s=st.floats(0, 100),
    down_window_s=st.floats(0, 1000),
    idle_s=st.floats(0, 1000),
)


def loaded(rate: float, service_s: float = 0.1, replicas: int = 2) -> ModelSignals:
    """A fleet of one instance per replica that keeps up."""
    utilisation = min(1.0, rate * service_s / replicas)
    return ModelSignals("m", replicas, 0, replicas, rate, service_s, utilisation=utilisation)


def run(
    settings: PolicySettings, *steps: tuple[float, ModelSignals], state: PolicyState | None = None
) -> list[Decision]:
    state, decisions = state or PolicyState(), []
    for now_s, signals in steps:
        decision, state = decide(settings, state, signals, now_s)
        decisions.append(decision)
    return decisions


@pytest.mark.parametrize(
    ("rate", "service_s", "expected"),
    [
        (7, 0.1, 1),  # 0.7 instances are busy: exactly the target of one replica
        (7.1, 0.1, 2),
        (70, 0.1, 10),
        (1e6, 1.0, 20),  # the bound
        (0.001, 0.1, 1),
    ],
)
def test_demand_is_littles_law_with_head_room(rate: float, service_s: float, expected: int) -> None:
    assert recommend(SETTINGS, loaded(rate, service_s))[0] == expected


def test_instances_of_a_replica_share_its_load() -> None:
    assert recommend(SETTINGS, replace(loaded(70), instances=8))[0] == 3  # 7 / (4 x 0.7)


def test_queue_is_to_be_drained_in_its_time() -> None:
    held_up = replace(loaded(7, replicas=1), pending=350, utilisation=1.0)
    assert recommend(SETTINGS, held_up)[0] == 6  # (0.7 + 350 x 0.1 / 10) / 0.7


def test_requests_held_by_a_gateway_count_as_a_queue() -> None:
    assert recommend(SETTINGS, replace(loaded(7, replicas=1), waiting=350))[0] == 6


def test_old_queue_grows_the_fleet_by_at_most_two() -> None:
    late = replace(loaded(1, replicas=3), pending=1, queue_age_s=60, utilisation=1.0)
    assert recommend(SETTINGS, late)[0] == 6


def test_old_queue_before_idle_instances_asks_for_nothing() -> None:
    late = replace(loaded(1, replicas=3), pending=1, queue_age_s=60)
    assert recommend(SETTINGS, late)[0] == 1


def test_long_request_that_has_not_ended_keeps_what_there_is() -> None:
    assert recommend(SETTINGS, ModelSignals("m", 3, 0, 3, running=1))[0] == 3


def test_replica_that_does_not_answer_stops_the_way_down() -> None:
    count, reason = recommend(SETTINGS, replace(loaded(1), replicas=2, missing=1))
    assert count == 3
    assert reason == "1 of 3 replicas do not answer"


def test_rise_is_followed_at_once_and_a_fall_after_its_window() -> None:
    settings = replace(SETTINGS, down_window_s=60)
    busy, calm = loaded(70), loaded(7)
    decisions = run(settings, (0, calm), (10, busy), (20, calm), (69, calm), (71, calm))
    assert [each.replicas for each in decisions] == [2, 10, 10, 10, 1]


def test_rise_must_last_its_window() -> None:
    settings = replace(SETTINGS, up_window_s=30, down_window_s=0)
    steps = [(t, loaded(7 if t in (0, 25) else 70, replicas=1)) for t in (0, 5, 25, 50, 56, 81)]
    assert [each.replicas for each in run(settings, *steps)] == [1, 1, 1, 1, 10, 10]


def test_idle_model_goes_to_zero_and_comes_back_at_once() -> None:
    settings = replace(SETTINGS, min_replicas=0, idle_s=60, up_window_s=30)
    idle = ModelSignals("m", 1, 0, 1)
    waiting = ModelSignals("m", waiting=1)
    steps = [(0, loaded(1, replicas=1)), (59, idle), (60, idle), (90, ModelSignals("m"))]
    decisions = run(settings, *steps, (91, waiting))
    assert [each.replicas for each in decisions] == [1, 1, 0, 0, 1]
    assert [each.is_active for each in decisions] == [True, True, False, False, True]


def test_few_requests_under_the_activation_rate_are_none() -> None:
    settings = replace(SETTINGS, min_replicas=0, idle_s=10, activation_rate=0.5)
    few, more = loaded(0.4, replicas=1), loaded(0.6, replicas=1)
    assert run(settings, (0, few), (10, few))[-1].replicas == 0
    assert run(settings, (0, more), (10, more))[-1].replicas == 1


def test_scaler_that_begins_takes_nothing_away() -> None:
    decision = run(replace(SETTINGS, min_replicas=0), (1000, ModelSignals("m", 8, 0, 8)))[0]
    assert decision.is_active


@EXAMPLES
@given(settings_of_any_kind, st.lists(st.tuples(st.floats(0, 500), signals_of_any_kind)))
def test_decisions_stay_within_the_bounds(
    settings: PolicySettings, moments: list[tuple[float, ModelSignals]]
) -> None:
    now_s, steps = 0.0, []
    for passed_s, signals in moments:
        now_s += passed_s
        steps.append((now_s, signals))
    for decision in run(settings, *steps):
        assert settings.min_replicas <= decision.replicas <= settings.max_replicas
        assert decision.replicas > 0 or not decision.is_active


@EXAMPLES
@given(signals_of_any_kind, st.floats(0, 1e9))
def test_more_requests_never_ask_for_fewer_replicas(signals: ModelSignals, more: float) -> None:
    busier = replace(signals, arrival_rate=signals.arrival_rate + more)
    assert recommend(SETTINGS, busier)[0] >= recommend(SETTINGS, signals)[0]


@EXAMPLES
@given(st.floats(0.01, 1e3), st.floats(1e-3, 10), st.integers(1, 50))
def test_recommended_fleet_carries_the_load_and_one_less_would_not(
    rate: float, service_s: float, instances: int
) -> None:
    settings = replace(SETTINGS, max_replicas=10**6)
    signals = replace(loaded(rate, service_s, 1), instances=instances)
    count = recommend(settings, signals)[0]
    carried = instances * settings.target_utilisation
    assert count * carried >= rate * service_s * (1 - 1e-6)
    assert count == 1 or (count - 1) * carried < rate * service_s * (1 + 1e-6)


@EXAMPLES
@given(settings_of_any_kind, signals_of_any_kind)
def test_steady_load_gives_a_steady_answer(settings: PolicySettings, signals: ModelSignals) -> None:
    longest = max(settings.up_window_s, settings.down_window_s, settings.idle_s)
    times = [longest * part for part in (0, 0.5, 1, 1.5, 2.5, 3.5)]
    decisions = run(settings, *((t, signals) for t in times))
    assert decisions[-1].replicas == decisions[-2].replicas
    assert math.isfinite(decisions[-1].replicas)
