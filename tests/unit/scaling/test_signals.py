"""Counters of replicas become rates of a fleet."""

from collections import deque
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import EXAMPLES

from penstock.scaling.signals import Counters, ReplicaHistory, ReplicaSignals, Series, combine

ONE = ("m", "1")
QUIET = Counters(instances=1)

counters_of_any_kind = st.builds(
    Counters, **{name: st.floats(0, 1e12) for name in Counters.__dataclass_fields__}
)


def history(*readings: tuple[float, Counters], window_s: float = 30) -> ReplicaHistory:
    made = ReplicaHistory(window_s)
    for now_s, counters in readings:
        made.add(now_s, {ONE: counters})
    return made


def test_first_reading_says_what_there_is_and_no_rate() -> None:
    signals = history((5, replace(QUIET, success=100, pending=3))).signals()["m"]
    assert signals == ReplicaSignals(pending=3, instances=1)


def test_arrivals_are_those_that_ended_and_those_that_were_added() -> None:
    before = replace(QUIET, success=100, failure=1, pending=3)
    after = replace(QUIET, success=110, failure=3, rejected=2, pending=5, running=1)
    signals = history((0, before), (2, after)).signals()["m"]
    assert signals.arrived == 10 + 2 + 3
    assert signals.completed == 10
    assert signals.rejected == 2


def test_what_is_older_than_the_window_counts_no_more() -> None:
    readings = [(t, replace(QUIET, success=t)) for t in range(0, 100, 10)]
    signals = history(*readings, window_s=30).signals()["m"]
    assert (signals.window_s, signals.completed) == (40, 40)


def test_counter_that_falls_counts_from_zero() -> None:
    signals = history(
        (0, replace(QUIET, success=1000, busy_s=500)), (10, replace(QUIET, success=7, busy_s=1))
    ).signals()["m"]
    assert (signals.completed, signals.busy_s) == (7, 1)


def test_background_batches_keep_no_instance_busy() -> None:
    before = replace(QUIET, busy_s=1, background_s=1)
    signals = history((0, before), (100, replace(QUIET, busy_s=11, background_s=5))).signals()
    assert signals["m"].busy_s == 6


def test_rounding_of_background_time_is_no_restart() -> None:
    before = replace(QUIET, success=1000, busy_s=0.1)
    after = replace(QUIET, success=1000, busy_s=0.3, background_s=0.2)
    assert after.busy_s - after.background_s < before.busy_s - before.background_s
    assert history((0, before), (10, after)).signals()["m"].completed == 0


def test_version_that_appears_brings_none_of_its_past() -> None:
    made = history((0, QUIET))
    made.add(10, {ONE: QUIET, ("m", "2"): replace(QUIET, success=10**6)})
    signals = made.signals()["m"]
    assert (signals.completed, signals.instances) == (0, 2)


def test_each_step_is_walked_once_however_many_models_there_are() -> None:
    walked = 0

    class Counted(dict[Series, Counters]):
        def items(self) -> Any:
            nonlocal walked
            walked += 1
            return super().items()

    made = ReplicaHistory(30)
    for now_s in range(3):
        made.add(now_s, Counted({(f"m{n}", "1"): QUIET for n in range(100)}))
    steps = [replace(each, by_series=Counted(each.by_series)) for each in made._steps]
    made._steps = deque(steps)
    walked = 0
    assert len(made.signals()) == 100
    assert walked == len(steps) + 1


def test_instances_are_never_busier_than_all_the_time() -> None:
    signals = history((0, QUIET), (10, replace(QUIET, success=1, busy_s=1e9))).signals()["m"]
    assert signals.busy_s == 10


def test_fleet_is_the_sum_of_its_replicas() -> None:
    one = ReplicaSignals(10, arrived=100, completed=90, busy_s=9, pending=3, instances=2)
    two = ReplicaSignals(20, arrived=40, completed=40, busy_s=4, running=1, instances=1)
    fleet = combine("m", [one, two], missing=1, waiting=5)
    assert (fleet.replicas, fleet.missing, fleet.instances) == (2, 1, 3)
    assert fleet.arrival_rate == 12
    assert fleet.service_s == 13 / 130
    assert fleet.in_flight == 9
    assert fleet.utilisation == 13 / 40


def test_queue_age_is_what_the_queue_takes_to_drain_if_that_is_longer() -> None:
    one = ReplicaSignals(10, arrived=20, completed=20, queue_s=2, busy_s=9, instances=1)
    assert combine("m", [one]).queue_age_s == 0.1
    assert combine("m", [replace(one, pending=30)]).queue_age_s == 15


def test_fleet_without_replicas_is_all_zero() -> None:
    fleet = combine("m", [])
    assert (fleet.arrival_rate, fleet.service_s, fleet.utilisation) == (0, None, 0)


@EXAMPLES
@given(st.lists(st.tuples(st.floats(0.1, 60), counters_of_any_kind), max_size=20))
def test_signals_are_finite_and_not_negative_whatever_counters_do(
    steps: list[tuple[float, Counters]],
) -> None:
    made, now_s = ReplicaHistory(30), 0.0
    for passed_s, counters in steps:
        now_s += passed_s
        made.add(now_s, {ONE: counters})
    fleet = combine("m", made.signals().values())
    assert 0 <= fleet.utilisation <= 1
    assert all(0 <= value < float("inf") for value in (fleet.arrival_rate, fleet.queue_age_s))
    assert fleet.service_s is None or 0 < fleet.service_s < float("inf")
