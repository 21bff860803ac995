"""What the figures of the steps make together: shares, gains, and how they stand to the targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gpu.served import BATCHES, LANES
from gpu.table import Outcome, Row

SERVER_OF_OFFLINE = 85.0
"""In percent: the least that Server is to reach of Offline."""
SERVER_ASKED = 87.0
"""What a run of Server is asked for, to see whether it does: a little more, since its Poisson
arrivals may be fewer than they should be, and its last answers come after them."""
OPERATIONS = "operations of a sample"
"""What a row is called that says what a model's sample costs."""
_LANES, _BARE = "lanes: images in and out", "bare loop: images in and out"
_GRAPH_ROWS = (1, 2, 4, 8)


def ceiling_table(model: str) -> str:
    """Where `ceiling` has a model's rates."""
    return f"{model}: the CUDA provider alone"


def ceiling_what(rows: int, threads: int) -> str:
    """What it calls one of them."""
    return f"batches of {rows}, {threads} at a time"


def served_table(scenario: str, target: str) -> str:
    """Where `offline`, `server` and `grpc` have theirs, by model."""
    where = {"engine": "in process", "grpc": "over gRPC"}[target]
    return f"served {where}, {scenario}"


def not_valid(model: str, verdict: str) -> str:
    """The note of a served run that reaches no target, whatever its rate."""
    return f"{model} is not VALID: {verdict}"


@dataclass(frozen=True)
class _Bar:
    """One figure as a share of another, in percent."""

    what: str
    figure: tuple[str, str]  # table and row; {model} in both
    of: tuple[str, str]
    least: float
    models: tuple[str, ...] = ("resnet50", "bert")


_OFFLINE = (served_table("Offline", "engine"), "{model}")
_SERVER = (served_table("Server", "engine"), "{model}")
_GRPC = (served_table("Offline", "grpc"), "{model}")
_CEILING = (ceiling_table("{model}"), "{ceiling}")
_BARS = (
    _Bar("Offline in process, of the ceiling", _OFFLINE, _CEILING, 97.0),
    _Bar("Server in process, of Offline", _SERVER, _OFFLINE, SERVER_OF_OFFLINE),
    _Bar("Offline over gRPC, of the ceiling", _GRPC, _CEILING, 80.0, ("bert",)),
)


def share(table: str, what: str, figure: Row, of: Row) -> Row:
    """The one in percent of the other, as far apart as their spreads allow."""
    return Row(
        table,
        what,
        "%",
        100 * figure.median / of.median,
        100 * figure.least / of.greatest,
        100 * figure.greatest / of.least,
    )


def _divides(row: Row) -> bool:
    """Whether something can be a share of it: a run may have had no right answer."""
    return row.least > 0


def gain(table: str, what: str, after: Row, before: Row) -> Row:
    """By how many percent a rate is greater than another."""
    found = share(table, what, after, before)
    return Row(table, what, "%", found.median - 100, found.least - 100, found.greatest - 100)


def bars(outcomes: Iterable[Outcome]) -> Outcome | None:
    """All that can be said of what was measured; None: nothing."""
    outcomes = list(outcomes)
    found = {(row.table, row.what): row for each in outcomes for row in each.rows}
    invalid = {
        (row.table, row.what)
        for each in outcomes
        for row in each.rows
        if any(note.startswith(not_valid(row.what, "")) for note in each.notes)
    }
    rows = [*_model_bars(found, invalid), *_lane_shares(found), *_graph_gains(found)]
    return Outcome("bars", "done", tuple(rows)) if rows else None


def _model_bars(
    found: Mapping[tuple[str, str], Row], invalid: set[tuple[str, str]]
) -> Iterator[Row]:
    for bar in _BARS:
        for model in bar.models:
            ceiling = ceiling_what(BATCHES[model], LANES)
            keys = [
                (table.format(model=model), what.format(model=model, ceiling=ceiling))
                for table, what in (bar.figure, bar.of)
            ]
            if any(key not in found for key in keys) or not _divides(found[keys[1]]):
                continue
            made = share("bars", "", found[keys[0]], found[keys[1]])
            verdict = "reached" if made.median >= bar.least else "missed"
            if any(key in invalid for key in keys):
                verdict = "of runs that are not VALID"
            what = f"{model}: {bar.what} (at least {bar.least:g}: {verdict})"
            yield Row("bars", what, made.unit, made.median, made.least, made.greatest)


def _lane_shares(found: Mapping[tuple[str, str], Row]) -> Iterator[Row]:
    for (table, what), row in found.items():
        bare = found.get((_BARE, what))
        if table == _LANES and bare and _divides(bare):
            yield share("lanes, of the bare loop", what, row, bare)


def _graph_gains(found: Mapping[tuple[str, str], Row]) -> Iterator[Row]:
    for table in (_LANES, _BARE):
        for lanes in (1, 2, 3, 4):
            for rows in _GRAPH_ROWS:
                keys = [
                    (table, f"{lanes} lanes, {graphs}, batches of {rows}")
                    for graphs in ("graphs", "no graphs")
                ]
                if all(key in found for key in keys) and _divides(found[keys[1]]):
                    what = f"{table.partition(':')[0]}, {lanes} lanes, batches of {rows}"
                    yield gain("gained by graphs", what, found[keys[0]], found[keys[1]])
