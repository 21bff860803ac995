"""A real Prometheus scrapes a real server; promtool reads what is shipped for it."""

import urllib.request
from pathlib import Path

import grpc
import pytest
from tests.support.fixture_models import write_simple
from tests.support.prometheus import Prometheus, prometheus, promtool
from tests.support.requests import simple_request
from tests.support.server_process import served

DEPLOY = Path(__file__).parents[2] / "server" / "deploy" / "prometheus"

pytestmark = pytest.mark.slow

CONFIG = """
global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: penstock
    static_configs: [{{targets: ["{target}"]}}]
"""


def until(server: Prometheus, expression: str, expected: float) -> None:
    """Returns once the expression has the value; the runner's limit ends a wait for ever."""
    while server.value(expression) != expected:
        pass


def infer(address: str, times: int) -> None:
    with grpc.insecure_channel(address) as channel:
        path = "/inference.GRPCInferenceService/ModelInfer"
        call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        for _ in range(times):
            call(simple_request().SerializeToString(), wait_for_ready=True)


@pytest.mark.parametrize(
    "command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_alert_rules_are_sound_and_fire_when_they_should(command: tuple[str, str, str]) -> None:
    *what, file = command
    assert "SUCCESS" in promtool(*what, DEPLOY / file)


def test_shipped_configuration_is_sound() -> None:
    assert "SUCCESS" in promtool("check", "config", DEPLOY / "prometheus.yml")


def test_prometheus_scrapes_a_server_and_evaluates_every_rule(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    config = tmp_path / "prometheus.yml"
    with served(tmp_path / "models") as server:
        infer(server.grpc, 7)
        config.write_text(CONFIG.format(rules=DEPLOY / "alerts.yml", target=server.metrics))
        with prometheus(config, tmp_path / "data") as watching:
            until(watching, 'nv_inference_request_success{model="simple"}', 7)
            until(watching, 'penstock_request_duration_seconds_count{model="simple"}', 7)
            until(watching, 'up{job="penstock"}', 1)
            infer(server.grpc, 5)
            until(watching, 'nv_inference_request_success{model="simple"}', 12)
            metadata = watching.get("metadata")
            assert metadata["penstock_batch_rows"][0]["type"] == "histogram"
            (group,) = watching.get("rules")["groups"]
            assert [rule["name"] for rule in group["rules"] if rule["health"] == "err"] == []


def test_promtool_reads_a_scrape(tmp_path: Path) -> None:
    """It also finds fault with Triton's counters, which have no `_total`: only those may differ."""
    write_simple(tmp_path / "models")
    with served(tmp_path / "models") as server:
        with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
            text = answer.read().decode()
    ours = "".join(
        line + "\n"
        for line in text.splitlines()
        if not line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(("nv_", "Total"))
    )
    promtool("check", "metrics", stdin=ours)
