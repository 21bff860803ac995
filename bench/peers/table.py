"""Tables in Markdown from the raw results. Where a peer wins on the same route, its row says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from peers.peer import Peer

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
OURS = "penstock"
P99_SAMPLES = 500
"""Of fewer a p99 is hardly more than the greatest: it is not shown."""
_LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Cell:
    """One point of one server: the records of its rounds, with the best of its settings."""

    variant: str
    records: list[dict[str, Any]]

    def middle(self, figure: str) -> float:
        """Over the rounds that have it: one over what a server can do has no latencies."""
        return float(median(each[figure] for each in self.records if figure in each))

    def spread(self, figure: str) -> str:
        values = [each[figure] for each in self.records if figure in each]
        return f"{number(median(values))} ({number(min(values))}..{number(max(values))})"

    @property
    def p99(self) -> str:
        """Median of the rounds, ms; "-" where a round had too few answers for one."""
        if any(each.get("sent", 0) < P99_SAMPLES for each in self.records if "rate" in each):
            return "-"
        return f"{number(self.middle('p99_ms'))} ms"

    @property
    def is_saturated(self) -> bool:
        """In most rounds the rate was over what the server can do."""
        return 2 * self._saturated_rounds > len(self.records)

    @property
    def is_undecided(self) -> bool:
        """Its rounds do not agree on whether it is."""
        return 0 < self._saturated_rounds < len(self.records)

    @property
    def _saturated_rounds(self) -> int:
        return sum("saturated_at" in each for each in self.records)


@dataclass(frozen=True)
class Row:
    """A server on one route, its cells by point."""

    peer: str
    route: str
    cells: dict[str, Cell]


def number(value: float) -> str:
    """With three digits or more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def is_better(cell: Cell, other: Cell) -> bool:
    """By rate in a closed loop; in an open one by p99, if it holds the rate at all."""
    if cell.is_saturated or other.is_saturated:
        return not cell.is_saturated
    figure, sign = ("rate", 1) if cell.records[0]["point"][0] == "c" else ("p99_ms", -1)
    return sign * cell.middle(figure) > sign * other.middle(figure)


def rows(results: Mapping[str, Any], work: str) -> list[Row]:
    """Of one workload, the quickest of each route first."""
    grouped: dict[tuple[str, str], dict[str, dict[str, Cell]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for each in results["points"]:
        if each["work"] != work:
            continue
        variants = grouped[each["peer"], each["route"]][each["point"]]
        cell = variants.setdefault(each["variant"], Cell(each["variant"], []))
        cell.records.append(each)
    made = [
        Row(peer, route, {point: _best(list(cells.values())) for point, cells in points.items()})
        for (peer, route), points in grouped.items()
    ]
    return sorted(made, key=lambda row: (row.route, -_peak(row)))


def _best(cells: list[Cell]) -> Cell:
    best = cells[0]
    for each in cells[1:]:
        if is_better(each, best):
            best = each
    return best


def _peak(row: Row) -> float:
    return max(cell.middle("rate") for point, cell in row.cells.items() if point[0] == "c")


def wins(row: Row, ours: Row | None, peer: Peer) -> str:
    """Where the row beats Penstock's of the same route, and why; "" if nowhere."""
    if ours is None or row.peer == OURS:
        return ""
    better = {
        point: cell
        for point, cell in row.cells.items()
        if point in ours.cells and is_better(cell, ours.cells[point])
    }
    clear = [point_name(p) for p, cell in better.items() if not overlap(cell, ours.cells[p])]
    close = [point_name(p) for p, cell in better.items() if overlap(cell, ours.cells[p])]
    texts = [f"**wins** at {', '.join(clear)}: {why(peer, row.route)}"] if clear else []
    texts += [f"ahead within the spread at {', '.join(close)}"] if close else []
    return "; ".join(texts)


def overlap(cell: Cell, other: Cell) -> bool:
    """Whether the rounds of two points leave open which one is better."""
    if cell.is_undecided or other.is_undecided:
        return True
    if cell.is_saturated or other.is_saturated:
        return False
    figure = "rate" if cell.records[0]["point"][0] == "c" else "p99_ms"
    mine, theirs = ([float(each[figure]) for each in x.records] for x in (cell, other))
    return max(min(mine), min(theirs)) <= min(max(mine), max(theirs))


def why(peer: Peer, what: str) -> str:
    """What the peer's file says of it."""
    return peer.wins.get(what, "why is not known")


def point_name(point: str) -> str:
    """For people."""
    kind, count = point[0], int(point[1:])
    return f"{count} in flight" if kind == "c" else f"{count:,}/s"


def render(results: Mapping[str, Any], peers: Mapping[str, Peer]) -> str:
    """All tables, with what they were measured by and on, and what failed."""
    parts = [_head(results)]
    for work, title, unit in (
        ("digits", "Digits, requests a second", "us"),
        ("resnet50", "ResNet-50, images a second", "ms"),
    ):
        if found := rows(results, work):
            parts += [f"**{title}**", _closed(found, peers, unit)]
            parts += [_open(found, peers)] if any("r" in p[0] for p in found[0].cells) else []
    if results["starts"]:
        parts += ["**Start and memory** (digits)", _starts(results, peers)]
    parts += [_troubles(results), _settings(results, peers)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Mapping[str, Any]) -> str:
    box, run = results["machine"], results["settings"]
    text = (
        f"By `{results['command']}`: {run['rounds']} rounds of about {run['seconds']:g} s a point, "
        f"{results['took_s'] / 60:.0f} minutes, on {box['processor']}, {box['cores']} cores that "
        f"the load generator shares, {box['memory']}, {box['system']}; Penstock {box['penstock']}. "
        f"Load of the machine before the run, of other work: {box['load before the run']}. "
        "Median (least..greatest) of the rounds."
    )
    if not results.get("is_whole"):
        text = f"**Interrupted: these are the rounds that there are.** {text}"
    for route, each in sorted(results.get("ceilings", {}).items()):
        text += (
            f" {route}: the generator reaches {number(each['rate'])}/s against a bare echo, 64 in "
            f"flight, for {number(each['client_us'])} us of CPU a request; h2load "
            f"{number(each['h2load'])}/s."
        )
    return text


def _grid(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _letter(peer: Peer, variant: str) -> str:
    names = peer.variant_names()
    return f" [{_LETTERS[names.index(variant)]}]" if variant in names else ""


def _table(
    found: list[Row],
    peers: Mapping[str, Peer],
    kind: str,
    show: Callable[[Cell], str],
    last: tuple[str, Callable[[Row], str]] | None,
) -> str:
    all_points = dict.fromkeys(point for row in found for point in row.cells)
    points = sorted((p for p in all_points if p[0] == kind), key=lambda point: int(point[1:]))
    ours = {row.route: row for row in found if row.peer == OURS}
    body = []
    for row in found:
        part = Row(row.peer, row.route, {p: row.cells[p] for p in points if p in row.cells})
        peer = peers[row.peer]
        line = [row.peer, row.route]
        for point in points:
            cell = part.cells.get(point)
            line.append("-" if cell is None else show(cell) + _letter(peer, cell.variant))
        line += [last[1](row)] if last else []
        body.append([*line, wins(part, ours.get(row.route), peer)])
    head = ["server", "by", *map(point_name, points), *([last[0]] if last else []), ""]
    return _grid(head, body)


def _closed(found: list[Row], peers: Mapping[str, Peer], unit: str) -> str:
    def show(cell: Cell) -> str:
        latency = f"p50 {number(cell.middle('p50_ms'))} ms, p99 {cell.p99}"
        return f"{cell.spread('rate')}, {latency}"

    def cpu(row: Row) -> str:
        cell = [each for point, each in row.cells.items() if point[0] == "c"][-1]
        return number(cell.middle("cpu_us") / (1 if unit == "us" else 1_000))

    return _table(found, peers, "c", show, (f"server CPU, {unit} a request, at the most", cpu))


def _open(found: list[Row], peers: Mapping[str, Peer]) -> str:
    def show(cell: Cell) -> str:
        if cell.is_saturated:
            return "cannot"
        return f"{number(cell.middle('p50_ms'))}, {cell.spread('p99_ms')}"

    return "Poisson arrivals, latency from the intended time: p50, p99 in ms.\n\n" + _table(
        found, peers, "r", show, None
    )


def _starts(results: Mapping[str, Any], peers: Mapping[str, Peer]) -> str:
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in results["starts"]:
        if each["work"] == "digits" and each["variant"] == next(iter(peers[each["peer"]].variants)):
            grouped[each["peer"]].append(each)
    cells = {name: Cell("", records) for name, records in grouped.items()}
    body = []
    for name, cell in sorted(cells.items(), key=lambda item: item[1].middle("ready_s")):
        line = [name, cell.spread("ready_s"), number(cell.middle("idle_mb"))]
        ours, won = cells.get(OURS), []
        for what, figure in (("start", "ready_s"), ("memory", "loaded_mb")):
            if ours and name != OURS and cell.middle(figure) < ours.middle(figure):
                won.append(f"**wins** on {what}: {why(peers[name], what)}")
        body.append([*line, number(cell.middle("loaded_mb")), "; ".join(won)])
    head = ["server", "start to the first right answer, s", "MiB then", "MiB after the load", ""]
    return _grid(head, body)


def _troubles(results: Mapping[str, Any]) -> str:
    lines = [f"- {name} was skipped: {reason}" for name, reason in results["skipped"].items()]
    texts: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for each in results["failures"]:
        texts[each["work"], each["peer"], each["variant"], each["why"]] += 1
    lines += [
        f"- {peer}{', ' + variant if variant else ''}, {work}: {text}"
        + (f" ({n} x)" if n > 1 else "")
        for (work, peer, variant, text), n in texts.items()
    ]
    return "**What failed**\n\n" + "\n".join(lines) if lines else "Nothing failed."


def _settings(results: Mapping[str, Any], peers: Mapping[str, Peer]) -> str:
    seen = {each["peer"] for each in results["starts"]}
    lines = []
    for name, peer in peers.items():
        if name not in seen:
            continue
        letters = [f"{v}{_letter(peer, v)}" for v in peer.variant_names()]
        packages = f" ({', '.join(peer.packages)})" if peer.packages else ""
        lines.append(f"- {name}{packages}: {'; '.join([peer.notes, *letters])}")
    return "**Settings**; a letter says which one a figure is of\n\n" + "\n".join(lines)


def place(readme: str, text: str) -> str:
    """The README with the tables between their marks.

    Raises:
        ValueError: it has no such marks.
    """
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks {BEGIN} or {END}")
    plot = "![Requests a second and CPU time, by server](peers/peers.svg)"
    return f"{head}{BEGIN}\n\n{text}\n{plot}\n\n{END}{tail}"
