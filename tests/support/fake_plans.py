"""A PlanBuilder whose plans are there: what it was asked for, and that they are in use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.fake_engine import signature_text

from penstock.codec import ModelConfig
from penstock.engines.places import EngineInUse, EnginePlaces

_PLACE = "a" * 64


@dataclass(frozen=True)
class AskedPlan:
    """What one was asked for; `max_batch_size` as it is written."""

    model: str
    label: str
    max_batch_size: int | None
    device: str
    rows: int


class FakePlans:
    """Has one plan, of the fake engine.

    `is_for_device`: plans run here, so that is checked. `signature`: the plan's file.
    """

    def __init__(
        self, directory: Path, is_for_device: bool = True, signature: str | None = None
    ) -> None:
        self.path = directory / _PLACE / "model.plan"
        self.asked: list[AskedPlan] = []
        self.is_closed = False
        self._places = EnginePlaces(directory, 0)
        self._is_for_device = is_for_device
        self._signature = signature_text() if signature is None else signature

    def plan_of(
        self,
        model: Path,
        label: str,
        config: ModelConfig,
        device: str,
        rows: int,
        check: Callable[[], None],
    ) -> EngineInUse:
        if self._is_for_device:
            check()
        self.asked.append(AskedPlan(model.name, label, config.max_batch_size, device, rows))
        engine = self._places.use(_PLACE, self.path.name)
        engine.path.write_text(self._signature)
        return engine

    def is_in_use(self) -> bool:
        """Whether somebody refers to the plan."""
        descriptor = os.open(self.path.with_name("in-use"), os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def maker_of(self, plan: Path) -> str | None:
        return "TensorRT 11.4.0.106" if plan.suffix == ".plan" else None

    def stats(self) -> None:
        """Nothing is counted."""

    def close(self) -> None:
        self.is_closed = True
