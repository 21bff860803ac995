"""What a step is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpu.hardware import Gpu
from gpu.parsing import last_line
from gpu.running import LeftOut, Ran, Run
from gpu.table import Outcome, Row

LIMIT_S = 900.0
"""Of a program, at most; the step's part of the budget may be less."""
LEFT_OUT_STATUS = 4
"""Of bench.gpu's own programs: what they need is not installed."""
Found = Iterator[Row | str]


@dataclass(frozen=True)
class Context:
    """What steps are given.

    Attributes:
        gpu: to measure.
        run: how programs are run; within the step's part of the budget, whatever limit it is told.
        output: a folder for what they leave.
        seconds: of each measurement that has a length.
        models: of bench.mlperf, to serve.
        found: what steps before found, on this machine and revision, by name.
    """

    gpu: Gpu
    run: Run
    output: Path
    seconds: float = 10.0
    models: Sequence[str] = ("resnet50", "bert")
    found: dict[str, Outcome] = field(default_factory=dict)

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
        share: of the budget, beside those of the other steps.
    """

    name: str
    does: str
    work: Callable[[Context], Found]
    share: float = 1.0
