"""The manifests for autoscalers name metrics and settings that there are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from penstock.scaling.triggers import read_trigger

DEPLOY = Path(__file__).resolve().parents[3] / "server" / "deploy"
ADAPTER = DEPLOY / "prometheus-adapter"


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ADAPTER / "rules.yaml").read_text())[
        "externalRules"
    ]
    return found


def metrics_of_the_hpa() -> Iterator[dict[str, Any]]:
    hpa = yaml.safe_load((ADAPTER / "hpa.yaml").read_text())
    for metric in hpa["spec"]["metrics"]:
        yield metric["external"]


def test_autoscaler_reads_what_the_rules_make() -> None:
    made = {rule["name"]["as"] for rule in rules()}
    read = {metric["metric"]["name"] for metric in metrics_of_the_hpa()}
    assert read and read <= made


def test_every_value_is_a_total_that_is_divided_by_the_replicas() -> None:
    assert all(metric["target"]["type"] == "AverageValue" for metric in metrics_of_the_hpa())
    assert all("sum(" in rule["metricsQuery"] for rule in rules())
    assert all("avg(" not in rule["metricsQuery"] for rule in rules())


def test_every_series_is_filtered_and_grouped_as_the_adapter_asks() -> None:
    for rule in rules():
        query = rule["metricsQuery"]
        series = re.findall(r"\b(?:nv|penstock)_\w+", query)
        assert query.count("<<.LabelMatchers>>") == len(series)
        assert query.count("by (<<.GroupBy>>)") == len(series)
        assert rule["seriesQuery"].partition("{")[0] in series


def test_scaled_object_asks_what_the_scaler_answers() -> None:
    (trigger,) = yaml.safe_load((DEPLOY / "keda-scaledobject.yaml").read_text())["spec"]["triggers"]
    assert trigger["type"] == "external-push"
    read = read_trigger(trigger["metadata"])
    assert (read.model, read.metric, read.target) == ("digits", "replicas", 1.0)
