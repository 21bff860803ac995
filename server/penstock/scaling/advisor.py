"""The heart of `penstock scaler`: rounds of asking the fleet, and the policy's decisions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from penstock.errors import NotFoundError, UnavailableError
from penstock.scaling.fleet import Clock, Fleet
from penstock.scaling.hooks import Change
from penstock.scaling.policy import Decision, PolicySettings, PolicyState, decide
from penstock.scaling.signals import ModelSignals
from penstock.scaling.triggers import Advice, Trigger

__all__ = ["Advisor"]

_MAX_MODELS = 10_000

_log = logging.getLogger(__name__)


class Advisor:
    """Signals and decisions by model, as of the last round.

    A model that no replica has any more is remembered while the policy may still want it.

    Threading: confined to the event loop.
    Ownership: borrows the fleet; the policy's state.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: PolicySettings,
        clock: Clock,
        on_change: Callable[[Change], None] = lambda change: None,
    ) -> None:
        """`on_change`: called with every decision that differs from the one before."""
        self._fleet = fleet
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self._states: dict[str, PolicyState] = {}
        self._advice: dict[str, Advice] = {}
        self._changed = asyncio.Event()
        self._is_known = False
        self._waiting = 0.0
        self._undecided: dict[str, str] = {}
        self._defect = ""

    async def round(self) -> Mapping[str, Advice]:
        """Asks everybody and decides anew. While nothing is known, the last advice is kept.

        Whatever it raises is a defect; nothing is known then until a round succeeds.
        """
        try:
            await self._fleet.ask(self._clock)
            self._decide_all(self._clock())
            self._defect = ""
        except Exception as error:
            self._is_known, self._defect = False, f"the last round failed: {error!r}"
            raise
        finally:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        return dict(self._advice)

    @property
    def is_known(self) -> bool:
        """Whether the last round could tell anything of the fleet."""
        return self._is_known

    def next_round(self) -> asyncio.Event:
        """An event that the next round sets; take it before looking and miss nothing."""
        return self._changed

    def advice(self, trigger: Trigger) -> list[Advice]:
        """Of the trigger's models.

        Raises:
            UnavailableError: no replica answers: what there is to do is not known.
                Nor is it while a model cannot be decided.
            NotFoundError: those that answer do not have the model.
        """
        if not self._is_known:
            why = self._defect or "; ".join(self._fleet.faults()[:3]) or "none was asked yet"
            raise UnavailableError(f"no replica answers: {why}")
        for name, why in self._undecided.items():
            if trigger.model in ("", name):
                raise UnavailableError(f"model '{name}' cannot be decided: {why}")
        if not trigger.model:
            return list(self._advice.values()) or [self._of_nobody("")]
        found = self._advice.get(trigger.model)
        if found is not None:
            return [found]
        up, down = self._fleet.counts(self._clock())
        if not up and not down:  # at zero nobody can say what models there are
            return [self._of_nobody(trigger.model)]
        more = f" ({down} more do not answer)" if down else ""
        raise NotFoundError(f"none of {up} replicas has model '{trigger.model}'{more}")

    def is_active(self, trigger: Trigger) -> bool:
        """Whether there should be any replica; raises as `advice` does.

        What a gateway holds is reason enough, whatever else is not known.
        """
        if self._waiting > 0:
            return True
        return any(each.decision.is_active for each in self.advice(trigger))

    def _decide_all(self, now_s: float) -> None:
        self._is_known = self._fleet.is_known(now_s)
        self._waiting = self._fleet.waiting(now_s)
        if not self._is_known:
            return
        signals = self._fleet.signals(now_s)
        for name in self._states.keys() - signals.keys():
            signals[name] = self._without_replicas(name, now_s)
        undecided = {}
        for name in self._chosen(signals):
            try:
                self._decide(signals[name], now_s)
            except Exception as error:
                if name not in self._undecided:
                    _log.exception("model %s cannot be decided: %s", name, signals[name])
                undecided[name] = repr(error)
        self._undecided = undecided

    def _chosen(self, names: Iterable[str]) -> list[str]:
        """No more than _MAX_MODELS: those decided before first, whatever names are invented."""
        ordered = sorted(names, key=lambda name: (name not in self._states, name))
        for name in ordered[_MAX_MODELS:]:
            self._states.pop(name, None)
            self._advice.pop(name, None)
        return ordered[:_MAX_MODELS]

    def _decide(self, signals: ModelSignals, now_s: float) -> None:
        name = signals.model
        state = self._states.get(name, PolicyState())
        decision, self._states[name] = decide(self._settings, state, signals, now_s)
        if decision.replicas != state.decided:
            self._tell(signals, decision, state.decided)
        self._advice[name] = Advice(signals, decision)
        is_gone = signals.replicas == 0 and not decision.is_active
        if is_gone and self._fleet.counts(now_s)[0]:  # unloaded: to be asked about it is an error
            del self._states[name], self._advice[name]

    def _tell(self, signals: ModelSignals, decision: Decision, before: int | None) -> None:
        was = "-" if before is None else before
        count, reason = decision.replicas, decision.reason
        _log.info("model %s: %s -> %d replicas: %s", signals.model, was, count, reason)
        change = Change(signals.model, before, count, decision.is_active, reason, signals)
        self._on_change(change)

    def _without_replicas(self, name: str, now_s: float) -> ModelSignals:
        missing = self._fleet.counts(now_s)[1]
        return ModelSignals(name, missing=missing, waiting=self._waiting)

    def _of_nobody(self, name: str) -> Advice:
        wanted = 1 if self._waiting > 0 else 0
        count = max(wanted, self._settings.min_replicas)
        signals = ModelSignals(name, waiting=self._waiting)
        return Advice(signals, Decision(count, count, wanted > 0, "there is no replica"))
