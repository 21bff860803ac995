"""The lineage of a version as a graph, and the graph as text or SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from penstock.store.records import VersionRecord

__all__ = ["Graph", "Node", "as_svg", "as_text", "draw_lineage"]

_MAX_DEPTH = 20
_COLUMNS = ("ancestor", "input", "version", "child", "environment")
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 250, 44, 60, 16
_FILLS = {
    "version": "#dbeafe",
    "ancestor": "#e5e7eb",
    "child": "#e5e7eb",
    "environment": "#dcfce7",
    "input": "#fef9c3",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A thing: its column, what it is called, and one line about it."""

    column: str
    title: str
    detail: str = ""


@dataclass(slots=True)
class Graph:
    """Nodes, and edges from what something was made of to it."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[Node, Node]] = field(default_factory=list)

    def add(self, node: Node) -> Node:
        """The node, which is there once."""
        if node not in self.nodes:
            self.nodes.append(node)
        return node


def draw_lineage(
    record: VersionRecord,
    parent_of: Callable[[str, int], VersionRecord | None],
    children: Sequence[VersionRecord],
) -> Graph:
    """The graph of a version.

    Args:
        record: the version.
        parent_of: another version, by model and number; None where there is none.
        children: versions that were made from it.
    """
    graph = Graph()
    middle = graph.add(Node("version", record.reference, record.digest[:19]))
    for link in record.links:
        if link.kind != "parent":
            detail = " ".join(filter(None, (link.revision[:12], link.digest[:19])))
            name = f"{link.kind}: {link.name}"
            graph.edges.append((graph.add(Node("input", name, detail)), middle))
    _add_ancestors(graph, record, middle, parent_of)
    for child in children:
        node = graph.add(Node("child", child.reference, child.digest[:19]))
        graph.edges.append((middle, node))
    for deployment in record.deployments:
        if deployment.status in ("SERVING", "REQUESTED"):
            node = Node("environment", deployment.environment, deployment.status.lower())
            graph.edges.append((middle, graph.add(node)))
    return graph


def _add_ancestors(
    graph: Graph,
    record: VersionRecord,
    node: Node,
    parent_of: Callable[[str, int], VersionRecord | None],
) -> None:
    seen = {record.reference}
    waiting = [(record, node)]
    for _ in range(_MAX_DEPTH):
        following = []
        for child, child_node in waiting:
            for link in child.links_of("parent"):
                name = f"{link.name}@{link.revision}"
                recipe = str(link.details.get("recipe", ""))
                parent_node = graph.add(Node("ancestor", name, recipe or link.digest[:19]))
                graph.edges.append((parent_node, child_node))
                parent = parent_of(link.name, int(link.revision)) if name not in seen else None
                seen.add(name)
                if parent is not None:
                    following.append((parent, parent_node))
        waiting = following


def as_text(graph: Graph) -> str:
    """What it was made of above it, what came of it below."""
    middle = next(node for node in graph.nodes if node.column == "version")
    lines = [_line(middle)]
    lines += _branch(graph, middle, "", {middle})
    below = [target for source, target in graph.edges if source == middle]
    for node in below:
        arrow = "serves in" if node.column == "environment" else "became"
        lines.append(f"=> {arrow} {_line(node)}")
    return "\n".join(lines)


def _branch(graph: Graph, node: Node, indent: str, seen: set[Node]) -> list[str]:
    above = [source for source, target in graph.edges if target == node]
    lines = []
    for number, source in enumerate(above, 1):
        is_last = number == len(above)
        lines.append(f"{indent}{'`-- ' if is_last else '|-- '}{_line(source)}")
        if source not in seen:
            deeper = indent + ("    " if is_last else "|   ")
            lines += _branch(graph, source, deeper, {*seen, source})
    return lines


def _line(node: Node) -> str:
    return f"{node.title}  {node.detail}".rstrip()


def as_svg(graph: Graph) -> str:
    """A drawing: columns from what it was made of to where it serves."""
    used = [name for name in _COLUMNS if any(node.column == name for node in graph.nodes)]
    places: dict[Node, tuple[int, int]] = {}
    for column, name in enumerate(used):
        for row, node in enumerate(node for node in graph.nodes if node.column == name):
            places[node] = (column * (_WIDTH + _GAP_X) + 10, row * (_HEIGHT + _GAP_Y) + 10)
    width = max(x for x, _ in places.values()) + _WIDTH + 10
    height = max(y for _, y in places.values()) + _HEIGHT + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    ]
    for source, target in graph.edges:
        parts.append(_edge(places[source], places[target]))
    parts += [_box(node, *place) for node, place in places.items()]
    return "\n".join([*parts, "</svg>", ""])


def _edge(source: tuple[int, int], target: tuple[int, int]) -> str:
    x1, y1 = source[0] + _WIDTH, source[1] + _HEIGHT // 2
    x2, y2 = target[0], target[1] + _HEIGHT // 2
    if x2 < x1:  # ancestors of ancestors share a column
        x1, x2 = source[0], target[0]
    bend = (x1 + x2) // 2 if x2 != x1 else x1 - 30
    return f'<path d="M{x1},{y1} C{bend},{y1} {bend},{y2} {x2},{y2}" fill="none" stroke="#6b7280"/>'


def _box(node: Node, x: int, y: int) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        f'fill="{_FILLS[node.column]}" stroke="#6b7280"/>'
        f'<text x="{x + 8}" y="{y + 18}" font-weight="bold">{_fitting(node.title)}</text>'
        f'<text x="{x + 8}" y="{y + 35}" fill="#4b5563">{_fitting(node.detail)}</text>'
    )


def _fitting(text: str) -> str:
    return escape(text if len(text) <= 36 else f"{text[:35]}…")
