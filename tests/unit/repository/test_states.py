import pytest

from penstock.repository.states import TRANSITIONS, UNLOADED, State, VersionState, move

ALL: list[State | None] = [None, *State]


def test_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(ALL)


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("target", list(State))
def test_only_the_moves_of_the_table_are_legal(source: State | None, target: State) -> None:
    current = None if source is None else VersionState(source)
    if target in TRANSITIONS[source]:
        assert move(current, target, "why") == VersionState(target, "why")
    else:
        with pytest.raises(ValueError, match="cannot go from"):
            move(current, target)


@pytest.mark.parametrize(
    ("state", "healthy"),
    [
        (VersionState(State.READY, "a reload failed"), True),
        (VersionState(State.LOADING), False),
        (VersionState(State.UNLOADING), True),
        (VersionState(State.UNAVAILABLE, "corrupt"), False),
        (VersionState(State.UNAVAILABLE, UNLOADED), True),
    ],
)
def test_health_for_strict_readiness(state: VersionState, healthy: bool) -> None:
    assert state.is_healthy() is healthy
