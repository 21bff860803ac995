"""InstanceScaler: how many instances the models of this server have, by the policy for replicas.

An instance is to a server what a replica is to a fleet: the same signals, read from the core's
counters, and the same pure function decide.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from penstock.errors import CoreError
from penstock.scaling.policy import PolicySettings, PolicyState, decide
from penstock.scaling.signals import Counters, ModelSignals, ReplicaHistory, combine

__all__ = ["InstanceScaler", "ScaledVersion"]

_WINDOW_S = 5.0
"""Over which rates are taken."""
_REST_S = 30.0
"""After an instance could not be made, until the next try."""

_log = logging.getLogger("penstock.scaling")


class ScaledVersion(Protocol):
    """A version that leaves the number of its instances open."""

    model: str
    version: int
    key: object  # the same for the same load
    bounds: tuple[int, int]

    def stats(self) -> Mapping[str, Any]:
        """The core's counters; empty once it serves no more."""

    async def add(self) -> None:
        """One more instance, ready to run; CoreError: there is none."""

    async def remove(self) -> None:
        """One instance less."""


@dataclass(slots=True)
class _Watched:
    """What is remembered of a version."""

    history: ReplicaHistory
    state: PolicyState = field(default_factory=PolicyState)
    task: asyncio.Task[None] | None = None
    rests_until_s: float = 0.0


class InstanceScaler:
    """Looks at each version that leaves it open, and adds or removes instances one by one.

    Threading: confined to the event loop; the changes themselves run in threads.
    Ownership: its tasks. Lifecycle: start -> stop.
    """

    def __init__(
        self,
        versions: Callable[[], Iterable[ScaledVersion]],
        settings: PolicySettings,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does nothing yet.

        Args:
            versions: those that may be scaled, now.
            settings: what is aimed at; the bounds are each version's own.
            interval_s: between two looks.
            clock: monotonic, s.
        """
        self._versions = versions
        self._settings = settings
        self._interval_s = interval_s
        self._clock = clock
        self._watched: dict[object, _Watched] = {}
        self._changes: Counter[tuple[str, int, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to look, on the running loop."""
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._on_timer)

    def stop(self) -> None:
        """Looks no more; a change under way ends by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stats(self) -> Mapping[tuple[str, int, str], int]:
        """How often instances were added, removed, or could not be made, by model and version."""
        return dict(self._changes)

    def look(self) -> list[asyncio.Task[None]]:
        """One look at all of them; the changes that it began."""
        now_s = self._clock()
        versions = {each.key: each for each in self._versions()}
        for gone in self._watched.keys() - versions.keys():
            del self._watched[gone]
        tasks = [self._look_at(each, now_s) for each in versions.values()]
        return [task for task in tasks if task is not None]

    def _on_timer(self) -> None:
        self.start()
        try:
            self.look()
        except Exception:
            _log.exception("how many instances there should be could not be decided")

    def _look_at(self, version: ScaledVersion, now_s: float) -> asyncio.Task[None] | None:
        stats = version.stats()
        if not stats:
            return None
        window_s = max(_WINDOW_S, 2 * self._interval_s)
        watched = self._watched.setdefault(version.key, _Watched(ReplicaHistory(window_s)))
        signals = _signals(version, stats, watched.history, now_s)
        least, most = version.bounds
        settings = replace(self._settings, min_replicas=least, max_replicas=most)
        decision, watched.state = decide(settings, watched.state, signals, now_s)
        is_busy = watched.task is not None and not watched.task.done()
        if is_busy or now_s < watched.rests_until_s or decision.replicas == signals.replicas:
            return None
        grows = decision.replicas > signals.replicas
        work = self._change(version, watched, grows, signals.replicas, decision.reason)
        watched.task = asyncio.get_running_loop().create_task(work)
        return watched.task

    async def _change(
        self, version: ScaledVersion, watched: _Watched, grows: bool, before: int, reason: str
    ) -> None:
        what = f"model '{version.model}' version {version.version}"
        after = before + 1 if grows else before - 1
        try:
            await (version.add() if grows else version.remove())
        except Exception as error:
            watched.rests_until_s = self._clock() + _REST_S
            if not version.stats():  # unloaded meanwhile
                return
            self._changes[version.model, version.version, "failed"] += 1
            is_foreseen = isinstance(error, CoreError)
            text = "%s stays at %d instances, %d were wanted: %s"
            _log.error(text, what, before, after, error, exc_info=not is_foreseen)
            return
        self._changes[version.model, version.version, "added" if grows else "removed"] += 1
        _log.info("%s: %d -> %d instances: %s", what, before, after, reason)


def _signals(
    version: ScaledVersion, stats: Mapping[str, Any], history: ReplicaHistory, now_s: float
) -> ModelSignals:
    """As of a fleet whose replicas are instances."""
    history.add(now_s, {(version.model, str(version.version)): _counters(stats)})
    signals = combine(version.model, [history.signals()[version.model]])
    return replace(
        signals,
        replicas=int(stats["instances"]),
        queue_age_s=max(signals.queue_age_s, stats["oldest_age_ns"] / 1e9),
    )


def _counters(stats: Mapping[str, Any]) -> Counters:
    return Counters(
        success=stats["success"]["count"],
        failure=stats["fail"]["count"],
        rejected=stats["rejected"]["queue_full"],
        queue_s=stats["queue"]["ns"] / 1e9,
        busy_s=stats["busy_ns"] / 1e9,
        background_s=stats["background"]["busy_ns"] / 1e9,
        pending=stats["pending"],
        running=stats["running"],
        instances=stats["instances"],
    )
