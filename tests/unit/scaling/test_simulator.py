"""The simulator keeps its books, and the policy keeps up with what it replays."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import EXAMPLES

from penstock.scaling.policy import PolicySettings
from penstock.scaling.simulator import CpuScaler, PolicyScaler, Second, World, simulate

WORLD = World(service_s=0.1, start_s=20)
SETTINGS = PolicySettings(max_replicas=40)


def replay(
    arrivals: Sequence[float], settings: PolicySettings = SETTINGS, world: World = WORLD
) -> list[Second]:
    return simulate(arrivals, PolicyScaler(settings, world), world)


@EXAMPLES
@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_every_request_is_served_or_waits(arrivals: list[int]) -> None:
    seconds = replay(arrivals)
    assert sum(each.arrived for each in seconds) == sum(arrivals)
    served = sum(each.served for each in seconds)
    assert served + seconds[-1].pending == pytest.approx(sum(arrivals))
    assert all(0 <= each.busy <= 1 and each.replicas <= each.wanted for each in seconds)


def test_queue_that_cannot_be_served_grows_old() -> None:
    world = World(service_s=1.0, initial=1)
    seconds = simulate([2.0] * 10, lambda moment: 1, world)
    assert [each.pending for each in seconds] == list(range(1, 11))
    assert [each.oldest_s for each in seconds[:4]] == [1, 1, 2, 2]


def test_replica_serves_once_it_has_started() -> None:
    world = World(service_s=1.0, start_s=7, initial=1)
    seconds = simulate([0.0] * 10, lambda moment: 2, world)
    assert [each.replicas for each in seconds] == [1] * 7 + [2] * 3
    assert [each.wanted for each in seconds] == [1] + [2] * 9


def test_policy_carries_a_step_and_gives_the_replicas_back() -> None:
    seconds = replay([20.0] * 300 + [150.0] * 900 + [20.0] * 900)
    assert seconds[1199].pending == 0
    assert seconds[1199].replicas >= 22  # 150 x 0.1 / 0.7
    assert seconds[-1].replicas == 3


def test_policy_waits_less_than_the_hpa_on_cpu_after_a_step() -> None:
    arrivals = [20.0] * 300 + [150.0] * 900
    hpa = simulate(arrivals, CpuScaler(), WORLD)
    policy = replay(arrivals)
    assert sum(e.waited_s for e in policy) < sum(e.waited_s for e in hpa) / 2


def test_policy_goes_to_zero_and_comes_back_for_the_first_request() -> None:
    settings = PolicySettings(min_replicas=0, idle_s=60, max_replicas=40)
    seconds = replay([5.0] * 60 + [0.0] * 600 + [1.0] * 60, settings)
    assert seconds[659].replicas == 0
    assert seconds[680].replicas >= 1
    assert seconds[-1].pending == 0
