"""The state of a version, as the index tells it, and the legal moves between states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

UNLOADED = "unloaded"
"""The reason of a version that is unavailable because that was asked for."""

EVICTED = "unloaded while idle, to make room within the memory budget: the next request loads it"
"""The reason of one whose memory another model was given."""

GIVEN_UP = "not loaded, since nobody waited for it any more: the next request loads it"
"""The reason of one whose load was given up before it began."""

NOT_LOADED = "not loaded yet: the first request loads it"
"""The reason of a model that waits to be asked for, under a memory budget."""


class State(StrEnum):
    """State of one version; the values are those of RepositoryIndex."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


TRANSITIONS: dict[State | None, frozenset[State]] = {
    # Never seen before.
    None: frozenset({State.LOADING}),
    # All versions of a load become ready at once, or the load failed.
    State.LOADING: frozenset({State.READY, State.UNAVAILABLE}),
    # A reload keeps the state: the old load serves until the new one takes over.
    State.READY: frozenset({State.READY, State.UNLOADING}),
    # Its requests are being finished; it may be wanted again before that.
    State.UNLOADING: frozenset({State.UNAVAILABLE, State.LOADING}),
    State.UNAVAILABLE: frozenset({State.LOADING}),
}
"""From each state (None: not in the index) to those that may follow."""


@dataclass(frozen=True, slots=True)
class VersionState:
    """A state with its reason; the reason of a ready version is why its reload failed."""

    state: State
    reason: str = ""

    def is_healthy(self) -> bool:
        """Whether strict readiness accepts it: ready, or gone on request."""
        if self.state is State.UNAVAILABLE:
            return self.reason in (UNLOADED, EVICTED)
        return self.state in (State.READY, State.UNLOADING)


def move(current: VersionState | None, state: State, reason: str = "") -> VersionState:
    """The state that follows.

    Raises:
        ValueError: the move is not in the table.
    """
    source = None if current is None else current.state
    if state not in TRANSITIONS[source]:
        raise ValueError(f"a version cannot go from {source} to {state}")
    return VersionState(state, reason)
