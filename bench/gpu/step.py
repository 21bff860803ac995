"""What a step is, and what it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpu.hardware import Gpu
from gpu.parsing import last_line
from gpu.running import LeftOut, Ran, Run, StepError
from gpu.table import Outcome, Row

LIMIT_S = 900.0
"""Of a program, at most; the step's part of the budget may be less."""
LEFT_OUT_STATUS = 4
"""Of bench.gpu's own programs: what they need is not installed."""
Found = Iterator[Row | str]


class Within:
    """Runs programs, all of them together no longer than so many seconds from now on.

    Threading: thread-compatible.
    """

    def __init__(
        self, runner: Run, seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins now."""
        self._runner = runner
        self._seconds = seconds
        self._now = now
        self._end = now() + seconds

    def left_s(self) -> float:
        """Of its seconds."""
        return max(0.0, self._end - self._now())

    def __call__(self, command: Sequence[str], limit_s: float) -> Ran:
        """Runs one.

        Raises:
            StepError: Nothing is left.
        """
        if not (left := self.left_s()):
            raise StepError(f"its {self._seconds:.0f} s of the budget are over")
        return self._runner(command, min(limit_s, left))


def _no_end() -> float:
    return math.inf


@dataclass(frozen=True)
class Context:
    """What steps are given.

    Attributes:
        gpu: to measure.
        run: how programs are run; within the step's part of the budget, whatever limit it is told.
        left_s: how much of that part is left.
        output: a folder for what they leave.
        seconds: of each measurement that has a length.
        models: of bench.mlperf, to serve.
        found: what steps before found, on this machine and revision, by name.
    """

    gpu: Gpu
    run: Run
    output: Path
    seconds: float = 10.0
    models: Sequence[str] = ("bert", "resnet50")
    found: dict[str, Outcome] = field(default_factory=dict)
    left_s: Callable[[], float] = _no_end

    def within(self, seconds: float, now: Callable[[], float] = time.monotonic) -> Context:
        """The same for so long from now on, or for what is left, if that is less."""
        part = Within(self.run, min(seconds, self.left_s()), now)
        return replace(self, run=part, left_s=part.left_s)

    def by_model(self, work: Callable[[str, Context], Found]) -> Found:
        """What `work` finds of each model, each in its part of the time that is left.

        Raises:
            StepError: One failed; the others have had their turn.
            LeftOut: What one needs is missing, and none had failed before.
        """
        failures: list[str] = []
        for at, model in enumerate(self.models):
            part = self.within(self.left_s() / (len(self.models) - at))
            try:
                yield from work(model, part)
            except LeftOut as missing:
                if not failures:
                    raise
                failures.append(f"{model}: {missing}")
                break
            except (StepError, ValueError, OSError) as error:
                failures.append(f"{model}: {error}")
        if failures:
            raise StepError("; ".join(failures))

    def try_run(self, command: Sequence[str]) -> Ran:
        """Runs one of bench.gpu's own programs.

        Raises:
            LeftOut: It says that what it needs is not installed.
        """
        ran = self.run(command, LIMIT_S)
        if ran.status == LEFT_OUT_STATUS:
            raise LeftOut(last_line(ran.output))
        return ran


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: on the command line and in the table.
        does: what, in a line.
        work: yields figures and notes.
        share: of the budget, beside those of the other steps: what one leaves is for those after
            it.
    """

    name: str
    does: str
    work: Callable[[Context], Found]
    share: float = 1.0
