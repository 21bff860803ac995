"""README's table of metrics, the dashboard and the alert rules name what a server exposes."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.scraped import fleet_scrape, full_scrape

ROOT = Path(__file__).parents[3]
SERVER = ROOT / "server"
GATEWAY = ROOT / "clients" / "gateway"
DEPLOY = SERVER / "deploy"
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \| ([^|]+) \| ([^|].*) \|$")
METRIC = re.compile(r"\b(?:penstock|process|nv)_\w+|\bTotal\w+Requests\b")


def both_scrapes() -> str:
    """What a server exposes, and what a gateway does."""
    return full_scrape() + fleet_scrape()


def exposed_types(text: str) -> dict[str, str]:
    """Type by name."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def exposed_labels(text: str) -> dict[str, set[str]]:
    """Names of labels by name of a metric, `le` of a histogram left out."""
    labels: dict[str, set[str]] = {name: set() for name in exposed_types(text)}
    for line in text.splitlines():
        if not line.startswith("#"):
            name = re.sub(r"_(bucket|sum|count)$", "", re.split(r"[{ ]", line)[0])
            full = name if name in labels else re.split(r"[{ ]", line)[0]
            labels[full] |= set(re.findall(r'(\w+)="', line)) - {"le"}
    return labels


def documented(page: Path) -> dict[str, tuple[str, set[str]]]:
    """Type and names of labels by name, as the page has them."""
    table = page.read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    rows = [ROW.match(line) for line in lines]
    assert all(rows), [line for line, row in zip(lines, rows, strict=True) if not row]
    assert len({row[1] for row in rows if row}) == len(rows), "a metric has two rows"
    return {row[1]: (row[2], set(re.findall(r"`(\w+)`", row[3]))) for row in rows if row}


def expressions() -> Iterator[str]:
    """Every PromQL expression that is shipped."""
    dashboard = json.loads((DEPLOY / "grafana" / "penstock.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    yield from re.findall(r"expr: (?:>-\n)?((?:.|\n)+?)\n        (?:for|labels):", rules)


@pytest.mark.parametrize(("home", "scrape"), [(SERVER, full_scrape), (GATEWAY, fleet_scrape)])
def test_table_has_every_metric_with_its_type_and_labels_and_no_other(
    home: Path, scrape: Callable[[], str]
) -> None:
    labels = exposed_labels(scrape())
    expected = {name: (kind, labels[name]) for name, kind in exposed_types(scrape()).items()}
    assert documented(home / "README.md") == expected


def test_every_metric_of_the_dashboard_and_the_alerts_exists() -> None:
    samples = {re.split(r"[{ ]", line)[0] for line in both_scrapes().splitlines()}
    used = [(name, each) for each in expressions() for name in METRIC.findall(each)]
    assert len(used) > 50
    assert [(name, each) for name, each in used if name not in samples] == []


def test_every_label_that_a_dashboard_or_an_alert_groups_by_exists() -> None:
    known = {"instance", "job", "le"}.union(*exposed_labels(both_scrapes()).values())
    for each in expressions():
        for group in re.findall(r"by \(([\w, ]+)\)", each):
            assert set(group.split(", ")) <= known, each


def test_dashboard_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads((DEPLOY / "grafana" / "penstock.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for at in (panel["gridPos"] for panel in panels):
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
