"""The Grafana dashboard against what is at hand without Grafana: promtool, Prometheus, a server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fixture_models import write_simple
from tests.support.prometheus import prometheus, promtool
from tests.support.server_process import served

DASHBOARD = Path(__file__).parents[2] / "server" / "deploy" / "grafana" / "penstock.json"
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$model": ".*"}
CONFIG = """
global: {{scrape_interval: 100ms}}
scrape_configs:
  - job_name: penstock
    static_configs: [{{targets: ["{target}"]}}]
"""

pytestmark = [pytest.mark.slow, pytest.mark.any_transport]


def expressions() -> Iterator[str]:
    """Each with values in place of Grafana's variables."""
    document = json.loads(DASHBOARD.read_text())
    for text in (each["expr"] for panel in document["panels"] for each in panel.get("targets", ())):
        for variable, value in VARIABLES.items():
            text = text.replace(variable, value)
        assert "$" not in text, "a variable that Grafana would not know either"
        yield text
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), \w+\)", variable["query"]["query"])
            assert found, variable
            yield found[1]


def test_every_expression_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"x:{n}", "expr": each} for n, each in enumerate(expressions())]
    assert len(rules) > 40
    document = {"groups": [{"name": "dashboard", "rules": rules}]}
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps(document))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


def test_every_metric_is_in_a_live_scrape_and_every_expression_is_evaluated(
    tmp_path: Path,
) -> None:
    write_simple(tmp_path / "models")
    (tmp_path / "jobs").mkdir()
    config = tmp_path / "prometheus.yml"
    with served(tmp_path / "models", "--jobs-root", str(tmp_path / "jobs")) as server:
        config.write_text(CONFIG.format(target=server.metrics))
        with prometheus(config, tmp_path / "data") as watching:
            while watching.value('up{job="penstock"}') != 1:
                pass  # until it was scraped; the runner's limit ends a wait for ever
            names = set(watching.get("metadata"))
            for each in expressions():
                used = re.findall(r"\b(?:penstock|process|nv)_\w+", each)
                families = {re.sub(r"_bucket$", "", name) for name in used}
                # Of GPUs there are samples where there are GPUs; test_metrics_table has a fake one.
                missing = {
                    name for name in families - names if not name.startswith("penstock_gpu_")
                }
                assert families and not missing, missing
                watching.get("query", query=each)  # fails where Prometheus refuses it
