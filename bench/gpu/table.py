"""Rows of figures, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STATES = ("done", "failed", "left out", "interrupted")
RESULTS = "results.json"
"""All that was found, in the folder of the results."""


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        table: which rows belong together.
        what: was measured.
        unit: of the values.
        median: of the repetitions, or the one value.
        least: likewise; equal to the median where there was one.
        greatest: likewise.
        share: of the GPU's measured peak that the median is, in operations; None = not known.
    """

    table: str
    what: str
    unit: str
    median: float
    least: float
    greatest: float
    share: float | None = None

    @staticmethod
    def single(table: str, what: str, unit: str, value: float) -> Row:
        """A figure without a spread."""
        return Row(table, what, unit, value, value, value)

    def text(self) -> str:
        """Median and, where there is one, spread."""
        if self.least == self.greatest:
            return f"{self.median:,.4g}"
        return f"{self.median:,.4g} ({self.least:,.4g}..{self.greatest:,.4g})"


@dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        step: its name.
        state: one of STATES.
        rows: what it measured.
        notes: what else there is to say; of a failure the reason, of what was left out too.
        seconds: that it took.
        key: of the machine and the revision it is true for.
    """

    step: str
    state: str
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    key: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(content: Any) -> Outcome:
        """What `write` kept, as JSON has it.

        Raises:
            ValueError: It is none.
        """
        try:
            parts = {"rows": tuple(Row(**row) for row in content["rows"])}
            made = Outcome(**{**content, **parts, "notes": tuple(content["notes"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no outcome of a step: {error}") from None
        if made.state not in STATES:
            raise ValueError(f"no outcome of a step: state {made.state!r}")
        return made


def parse_rows(output: str) -> tuple[Row, ...]:
    """The rows that gpu_bench printed, a line of JSON each; other lines are not its figures.

    Raises:
        ValueError: A line begins as a row and is none.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    try:
        return tuple(Row(**json.loads(line)) for line in lines)
    except TypeError as error:
        raise ValueError(f"no row: {error}") from None


def markdown(machine: Mapping[str, str], outcomes: Iterable[Outcome]) -> str:
    """The whole table: the machine, each step's figures, and what did not run."""
    parts = ["# A GPU, measured\n", _facts(machine)]
    for outcome in outcomes:
        parts.append(f"## {outcome.step}: {outcome.state} ({outcome.seconds:.0f} s)\n")
        tables = dict.fromkeys(row.table for row in outcome.rows)
        for table in tables:
            rows = [row for row in outcome.rows if row.table == table]
            has_shares = any(row.share is not None for row in rows)
            last = (" of the peak |", "---|") if has_shares else ("", "")
            parts.append(f"| {table} | | |{last[0]}\n|---|---|---|{last[1]}")
            parts.append("\n".join(_line(row, has_shares) for row in rows) + "\n")
        if outcome.notes:
            parts.append("\n".join(f"- {note}" for note in outcome.notes) + "\n")
    return "\n".join(parts)


def _line(row: Row, has_shares: bool) -> str:
    line = f"| {row.what} | {row.text()} | {row.unit} |"
    if not has_shares:
        return line
    return line + (" |" if row.share is None else f" {100 * row.share:.1f} % |")


def _facts(machine: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in machine.items()) + "\n"


def write(folder: Path, machine: Mapping[str, str], outcomes: list[Outcome]) -> None:
    """Writes results.json, whole or not at all, and results.md."""
    content: dict[str, Any] = {"machine": dict(machine), "steps": [asdict(o) for o in outcomes]}
    temporary = folder / f"{RESULTS}.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(folder / RESULTS)
    (folder / "results.md").write_text(markdown(machine, outcomes))
