"""What models run on, and how their batches ran there, in a scrape."""

from typing import Any

from tests.support.scraped import STATS

from penstock.codec import VersionStatistics
from penstock.observe.devices import device_families
from penstock.observe.exposition import render

GPU: dict[str, Any] = {**STATS["devices"][0], "id": 1, "uuid": "GPU-1", "uncaptured_runs": 9}


def lines(*versions: VersionStatistics, **peaks: float) -> list[str]:
    """The samples, without help and types."""
    text = render(device_families(versions, peaks)).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_every_version_says_what_it_runs_on() -> None:
    on_cpu = VersionStatistics(
        "c", 2, {**STATS, "devices": []}, runs_on="CPU", engine="ONNX Runtime 1"
    )
    on_gpu = VersionStatistics("g", 1, STATS, runs_on='GPU 0 (a "b")', engine="FakeRT 11")
    info = [line for line in lines(on_cpu, on_gpu) if line.startswith("penstock_model_info")]
    assert info == [
        'penstock_model_info{model="c",version="2",engine="ONNX Runtime 1",runs_on="CPU"} 1',
        'penstock_model_info{model="g",version="1",engine="FakeRT 11",'
        'runs_on="GPU 0 (a \\"b\\")"} 1',
    ]


def test_version_on_the_cpu_has_no_other_sample() -> None:
    found = lines(VersionStatistics("c", 2, {**STATS, "devices": []}, runs_on="CPU", engine="E"))
    assert [line.partition("{")[0] for line in found] == ["penstock_model_info"]


def test_runs_are_told_by_device_and_bucket() -> None:
    stats = {**STATS, "devices": [*STATS["devices"], GPU]}
    found = set(lines(VersionStatistics("m", 1, stats)))
    one, other = (f'model="m",version="1",gpu_uuid="GPU-{i}"' for i in (0, 1))
    assert {
        f'penstock_graph_runs_total{{{one},bucket="1"}} 4',
        f'penstock_graph_runs_total{{{other},bucket="8"}} 2',
        f'penstock_graph_padded_rows_total{{{one},bucket="8"}} 5',
        f"penstock_uncaptured_runs_total{{{one}}} 3",
        f"penstock_uncaptured_runs_total{{{other}}} 9",
        f"penstock_uncaptured_padded_rows_total{{{one}}} 2",
        f"penstock_row_changes_total{{{one}}} 1",
        f"penstock_graph_memory_bytes{{{one}}} 300",
        f"penstock_graph_memory_budget_bytes{{{one}}} 500",
        f"penstock_model_device_memory_bytes{{{one}}} 700",
        f"penstock_model_device_busy_seconds_total{{{one}}} 1.25",
    } <= found


def test_graphs_that_do_not_exist_have_no_bucket() -> None:
    stats = {**STATS, "devices": [{**GPU, "graphs": []}]}
    found = lines(VersionStatistics("m", 1, stats))
    assert not [line for line in found if "bucket=" in line]
    assert [line for line in found if line.startswith("penstock_uncaptured_runs_total")]


def peaks_of(version: VersionStatistics, **peaks: float) -> list[str]:
    found = lines(version, **peaks)
    name = "penstock_model_peak_operations_per_second"
    return [line.rpartition(" ")[2] for line in found if line.startswith(name)]


def test_peak_is_the_devices_all_together() -> None:
    on_cpu = VersionStatistics("c", 1, {**STATS, "devices": []}, runs_on="CPU")
    assert peaks_of(on_cpu, CPU=3.0, GPU=5.0) == ["3"]
    assert peaks_of(on_cpu, GPU=5.0) == []
    both = VersionStatistics("g", 1, {**STATS, "devices": [*STATS["devices"], GPU]}, runs_on="GPU")
    assert peaks_of(both, CPU=3.0, GPU=5.0) == ["10"]
    assert peaks_of(both, **{"GPU-1": 7.0, "GPU": 5.0}) == ["12"], "the UUID is closer"
    assert peaks_of(both, **{"Fake GPU": 2.0, "GPU": 5.0}) == ["4"], "so is the name"
    assert peaks_of(both, **{"GPU-1": 7.0}) == [], "of the other one nothing is known"


def test_peak_that_a_configuration_says_goes_first() -> None:
    version = VersionStatistics("g", 1, STATS, peak=11)
    assert peaks_of(version, GPU=5.0) == ["11"]


def test_python_worker_has_no_peak() -> None:
    version = VersionStatistics("p", 1, {**STATS, "devices": []}, runs_on="Python worker")
    assert peaks_of(version, CPU=3.0, GPU=5.0) == []
