"""What is to be done about a repository that is polled: pure functions of what was seen."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from penstock.repository.snapshot import ModelSnapshot, Root, Snapshot

__all__ = ["Changes", "find_changes", "find_vanished"]

Tried = Mapping[str, ModelSnapshot | None]
"""By model: what it looked like when it was last loaded, or tried to; None = try again."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of models, sorted.

    Attributes:
        load: new or changed, and stable.
        refuse: stable, but there is no telling what is in them; the snapshot's fault says why.
        unload: gone.
    """

    load: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()
    unload: tuple[str, ...] = ()


def find_changes(
    previous: Snapshot, current: Snapshot, tried: Tried, busy: Container[str] = ()
) -> Changes:
    """What to do after two polls.

    Nothing is done about a model that looks different in the two: somebody may still be writing.

    Args:
        previous: the poll before.
        current: this poll.
        tried: models that were loaded, or tried to, since they were last gone.
        busy: models that something is being done about; they are looked at when that is over.
    """
    before, now = previous.models, current.models
    stable = [
        name
        for name, snapshot in sorted(now.items())
        if name not in busy and before.get(name) == snapshot and tried.get(name) != snapshot
    ]
    gone = [name for name in sorted(tried) if name not in before and name not in now]
    return Changes(
        load=tuple(name for name in stable if not now[name].fault),
        refuse=tuple(name for name in stable if now[name].fault),
        unload=tuple(name for name in gone if name not in busy),
    )


def find_vanished(previous: Snapshot, current: Snapshot) -> list[Root]:
    """Repositories whose mount is gone: another directory is in their place, and it is empty.

    A repository that somebody emptied is still the same directory, and one that was replaced by a
    newer one has models in it.
    """
    return [
        after
        for before, after in zip(previous.roots, current.roots, strict=False)
        if before.model_count and not after.model_count and before.identity != after.identity
    ]
