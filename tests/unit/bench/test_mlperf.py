"""The MLPerf harness without LoadGen and without a server: its arithmetic and its judgement."""

import json
import os
import subprocess
import sys
import time
from array import array
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mlperf.accounting import Peak, count_operations, machines_for, operations_of, table
from mlperf.accuracy import accuracy
from mlperf.cli import main, parse
from mlperf.folder import PARTIAL, clear
from mlperf.machine import describe
from mlperf.minilm import MiniLm, nearest, sentences
from mlperf.networks import BertShape, bert
from mlperf.placement import kept_off, parse_cpus
from mlperf.run import (
    PATIENCE_S,
    Aborted,
    Calibration,
    Result,
    _Watch,
    expecting,
    loadgen_reasons,
    probe,
    read_summary,
)
from mlperf.search import Bracket, is_met
from mlperf.settings import SCENARIOS, Plan
from mlperf.sut import Progress
from mlperf.svg import line_plot
from mlperf.targets import NullTarget
from mlperf.times import from_arrays
from mlperf.workloads import Workload
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2

import penstock

INVALID = """\
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
Recommendations:
 * Reduce target QPS to improve latency.
99.00 percentile latency (ns)   : 6280000
"""


def network(*nodes: onnx.NodeProto, shape: list[int | str], **weights: list[int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *([None] * 3)][:2])],
        [numpy_helper.from_array(np.ones(dims, np.float32), n) for n, dims in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def test_operations_of_a_row_are_two_for_each_multiplication() -> None:
    matmul = network(helper.make_node("MatMul", ["x", "w"], ["y"]), shape=["n", 64], w=[64, 10])
    assert count_operations(matmul, {"x": [1, 64]}) == 2 * 64 * 10
    gemm = network(helper.make_node("Gemm", ["x", "w"], ["y"]), shape=["n", 8], w=[8, 3])
    assert count_operations(gemm, {"x": [1, 8]}) == 2 * 8 * 3
    nodes = (
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Flatten", ["c"], ["y"]),
    )
    conv = network(*nodes, shape=["n", 3, 8, 8], w=[16, 3, 3, 3])
    assert count_operations(conv, {"x": [1, 3, 8, 8]}) == 2 * (4 * 4 * 16) * (3 * 3 * 3)


def test_operations_of_an_encoder_follow_its_length() -> None:
    shape = BertShape(layers=2, width=64, heads=4, vocabulary=100, most_tokens=32)
    model = bert(0, shape)
    for tokens in (8, 32):
        layer = 4 * 2 * tokens * 64 * 64 + 2 * 2 * tokens * tokens * 64 + 2 * 2 * tokens * 64 * 256
        assert count_operations(model, {"input_ids": [1, tokens]}) == 2 * layer + 2 * 64 * 64


def test_operations_are_the_mean_of_samples_of_different_shapes() -> None:
    model = network(helper.make_node("MatMul", ["x", "w"], ["y"]), shape=["n", 64], w=[64, 10])
    rows = [np.zeros((1, 64), np.float32), np.zeros((3, 64), np.float32)]
    workload = Workload(name="toy", onnx=model, inputs={"x": rows}, answer="y")
    assert operations_of(workload) == 2 * (2 * 64 * 10)
    assert operations_of(replace(workload, onnx=b"")) is None


def test_load_is_the_one_that_was_read_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = iter([1.25, 9.0])
    monkeypatch.setattr("mlperf.machine.os.getloadavg", lambda: (next(loads), 0.0, 0.0))
    flags = ["mlperf", "--scenario", "Offline", "--target", "null", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", flags)
    monkeypatch.setattr("mlperf.cli.measure", lambda plan, *_: Result(plan, reasons=["none ran"]))
    with pytest.raises(SystemExit):
        main()
    assert "1.25" in (tmp_path / "report.html").read_text()


def test_versions_are_told_where_packages_are_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "1.31.1"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("mlperf.machine.version", version)
    described = describe(0.0)
    assert described["penstock"].startswith(penstock.__version__)
    assert described["ONNX Runtime"] == "1.31.1"
    assert described["LoadGen"] == "unknown"


def test_operations_of_an_unknown_shape_are_refused_by_name() -> None:
    nodes = (
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("Flatten", ["c"], ["y"]),
    )
    model = network(*nodes, shape=["n", 3, "height", "width"], w=[16, 3, 3, 3])
    with pytest.raises(ValueError, match=r"node 'first' \(Conv\)"):
        count_operations(model, {"x": [1, 3, -1, -1]})


def test_accounting_divides_by_the_peak_and_by_the_price() -> None:
    rows = dict(table(2_000_000, [Peak("fp32", 100e9, "x")], 5_000.0, 3.6))
    assert rows["achieved"] == "10.00 GOPS"
    assert rows["utilisation of the fp32 peak"] == "10.00 %"
    assert rows["cost of a million inferences"] == "0.2 at 3.6 an hour"
    assert machines_for(2_000, 999) == 3


def test_accounting_says_where_nothing_can_be_counted() -> None:
    rows = dict(table(None, [Peak("fp32", 100e9, "x")], 5_000.0, 3.6))
    assert "no graph" in rows["operations of an inference (products, convolutions, attention)"]
    assert "achieved" not in rows
    assert rows["cost of a million inferences"] == "0.2 at 3.6 an hour"


def test_search_doubles_then_bisects_to_the_edge() -> None:
    bracket, rate, probes = Bracket(), Bracket().next(100.0), 0
    while rate is not None:
        bracket, probes = bracket.with_result(rate, rate <= 730.0), probes + 1
        rate = bracket.next(100.0)
    assert 730 / 1.05 <= bracket.good <= 730.0 < bracket.bad
    assert probes <= 12


def test_search_gives_up_where_no_rate_will_do() -> None:
    bracket, rate = Bracket(), Bracket().next(1_000.0)
    while rate is not None:
        bracket = bracket.with_result(rate, False)
        rate = bracket.next(1_000.0)
    assert bracket.good == 0.0


def test_search_tries_no_rate_above_the_most() -> None:
    bracket = Bracket(most=250.0)
    assert bracket.next(1_000.0) == 250.0
    assert bracket.with_result(200.0, True).next(1_000.0) == 250.0
    assert bracket.with_result(250.0, True).next(1_000.0) is None


def planned(scenario: str, **more: Any) -> Plan:
    values = {"mode": "performance", "target": "grpc", "output": Path("x"), "duration_s": 600.0}
    return Plan(toy(None), scenario, **{**values, **more})


def test_queries_that_loadgen_makes_in_advance_must_fit_into_memory() -> None:
    memory = 16 << 30
    most = {each: planned(each).most_rate(memory) for each in SCENARIOS}
    assert most["Server"] == pytest.approx(0.7 * memory / 350 / 600)
    assert most["MultiStream"] < most["SingleStream"] < most["Server"] < most["Offline"]


def test_offline_is_held_back_where_its_samples_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlperf.settings.free_memory_bytes", lambda: 1 << 30)
    found = Calibration(300_000.0, 300_000.0, 0.001)
    most = planned("Offline").most_rate()
    held = expecting(planned("Offline", sut="native"), found)
    assert held.rate == most and most < held.held_to < 1.1 * most
    assert f"HELD BACK to {held.held_to:,.0f} samples/s" in held.label
    short = expecting(planned("Offline", sut="native", duration_s=1.0), found)
    assert short.held_to == 0.0 and short.rate > 300_000


@pytest.mark.parametrize(("rate", "seconds"), [(1_000.0, 3.072), (100_000.0, 0.3)])
def test_probe_is_longer_than_what_is_under_way_takes(
    rate: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it knows only a run's beginning and end, and the run itself ends too soon."""
    probed: list[Plan] = []

    def run_long_enough(plan: Plan, *_: object) -> Result:
        probed.append(plan)
        return Result(plan)

    monkeypatch.setattr("mlperf.run.run_long_enough", run_long_enough)
    workload = replace(toy(None), window=1024)
    found = Calibration(rate, rate, 0.001)
    for scenario in ("Offline", "SingleStream"):
        wanted = replace(planned(scenario, sut="native"), workload=workload)
        probe(wanted, found, NullTarget(toy(None)))
    offline, one_by_one = (plan.duration_s for plan in probed)
    assert offline == pytest.approx(seconds)
    assert one_by_one == pytest.approx(0.3), "one is under way there, whatever the window"


def test_length_that_is_not_mlperfs_is_in_the_label() -> None:
    assert planned("Server", is_valid=True).label == ""
    assert (
        "SHORTENED (at least 60 s instead of 600)"
        in planned("Server", is_valid=True, duration_s=60.0).label
    )
    few = planned("Offline", is_valid=True, least=512)
    assert few.label == "SHORTENED (at least 512 samples instead of 24,576)"
    assert few.values()["min_query_count"] == 512
    slow = replace(toy(None), quick_percentile=0.9)
    quick = replace(planned("Server", duration_s=2.0), workload=slow)
    assert "90th percentile" in quick.label
    assert (quick.percentile, replace(quick, is_valid=True).percentile) == (0.9, 0.99)


def test_probe_is_met_within_the_bound_if_no_answer_failed() -> None:
    result = Result(planned("Server", bound_ms=7.0), summary=read_summary(INVALID))
    assert is_met(result)
    assert not is_met(replace(result, failed=1))
    assert not is_met(replace(result, plan=replace(result.plan, bound_ms=6.0)))
    assert not is_met(replace(result, summary={}))


def test_folder_keeps_nothing_of_the_run_before(tmp_path: Path) -> None:
    (tmp_path / "probe-01").mkdir()
    for name in ("report.md", "results.json", "mlperf_log_summary.txt", "probe-01/x", "mine"):
        (tmp_path / name).touch()
    assert clear(tmp_path) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == [PARTIAL, "mine"]
    assert "did not end" in clear(tmp_path)[0]


class Silent:
    """A system with a sample under way since a time."""

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns

    def progress(self) -> Progress:
        return Progress(done=3, in_flight=1, last_done_ns=self.since_ns, is_lost=False)


def test_target_that_is_silent_for_long_ends_the_run() -> None:
    result, now_ns = Result(planned("Server")), time.monotonic_ns()
    arguments = (NullTarget(toy(None)), result, now_ns, lambda _: None)
    _Watch(Silent(now_ns), *arguments).look()  # type: ignore[arg-type]
    long_ago_ns = now_ns - int(1.1 * PATIENCE_S * 1e9)
    with pytest.raises(Aborted, match="no answer for 60 s, 1 samples wait"):
        _Watch(Silent(long_ago_ns), *arguments).look()  # type: ignore[arg-type]


def test_summary_is_read_and_says_why_it_is_invalid() -> None:
    assert read_summary(INVALID)["99.00 percentile latency (ns)"] == "6280000"
    assert loadgen_reasons(INVALID) == [
        "LoadGen: Performance constraints satisfied : NO",
        "LoadGen: * Reduce target QPS to improve latency.",
    ]


def toy(truth: list[int] | None) -> Workload:
    inputs = np.eye(4, dtype=np.float32)
    model = network(helper.make_node("Identity", ["x"], ["y"]), shape=["n", 4])
    known = None if truth is None else np.array(truth)
    return Workload(name="toy", onnx=model, inputs={"x": inputs}, answer="y", truth=known)


@pytest.mark.parametrize(("truth", "share"), [([0, 1, 2, 2], 0.5), (None, 0.75)])
def test_accuracy_counts_what_is_missing_as_wrong(
    tmp_path: Path, truth: list[int] | None, share: float
) -> None:
    rows = np.eye(4, dtype=np.float32)
    log = [{"qsl_idx": at, "data": rows[at].tobytes().hex()} for at in (0, 1, 3)]
    (tmp_path / "log.json").write_text(json.dumps(log))
    assert accuracy(toy(truth), tmp_path / "log.json") == share


def test_accuracy_counts_what_is_there_twice_as_wrong(tmp_path: Path) -> None:
    row = np.eye(4, dtype=np.float32)[0].tobytes().hex()
    (tmp_path / "log.json").write_text(json.dumps([{"qsl_idx": 0, "data": row}] * 2))
    assert accuracy(toy(None), tmp_path / "log.json") == 0.0


def test_an_answer_of_another_shape_or_value_is_wrong() -> None:
    workload = toy(None)
    row = np.eye(4, dtype=np.float32)[:1]
    assert workload.is_right(0, row)
    assert not workload.is_right(1, row)
    assert not workload.is_right(0, row[:, :3])
    assert not workload.is_right(0, row.astype(np.float64))


def test_sentences_are_different_and_as_many_as_asked_for() -> None:
    found = sentences(128)
    assert len(set(found)) == len(found) == 128
    assert all(20 < len(each) <= 162 and each.endswith(".") for each in found)


def test_nearest_ranks_others_by_cosine() -> None:
    angles = np.radians([0, 10, 25, 90])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [5], [2], [1]]
    assert nearest(embeddings, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_embeddings_that_rank_otherwise_or_are_missing_are_wrong() -> None:
    workload = MiniLm()
    random = np.random.default_rng(1)
    embeddings = random.standard_normal((workload.size, 384), np.float32)
    workload.__dict__["reference"] = embeddings  # else the encoder would have to be there
    answers = {at: embeddings[at : at + 1] for at in range(workload.size)}
    assert workload.score(answers) == 1.0
    assert workload.score({at: answers[at] for at in range(64)}) <= 0.5
    swapped = {at: answers[(at + 1) % workload.size] for at in range(workload.size)}
    assert workload.score(swapped) < 0.1


def test_strings_are_sent_as_bytes_with_their_lengths() -> None:
    texts = np.array([[b"ab"], [b""]], object)
    workload = Workload(name="toy", onnx=b"", inputs={"text": texts}, answer="y")
    request = service_pb2.ModelInferRequest.FromString(workload.grpc_requests()[0])
    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == ("BYTES", [1, 1])
    assert request.raw_input_contents[0] == b"\2\0\0\0ab"
    head, body = workload.http_requests()[1]
    assert body[head:] == b"\0\0\0\0"
    assert json.loads(body[:head])["inputs"][0]["parameters"]["binary_data_size"] == 4


def test_times_are_counted_in_bins_and_shares() -> None:
    done = array("q", [1_000_000_000 + ms * 1_000_000 for ms in (50, 60, 250)])
    times = from_arrays(1_000_000_000, done, array("q", [1_000, 2_000, 9_000]))
    assert times.bins == [2, 0, 1]
    assert (times.count, times.mean_us) == (3, 4.0)
    assert times.seconds == pytest.approx(0.2)
    assert times.quantiles[0] == (0.0, 1.0)
    assert times.quantiles[-1][1] == pytest.approx(9.0, rel=0.01)
    assert times.per_second == pytest.approx(10.0)


def test_plot_is_svg_that_loads_nothing() -> None:
    made = line_plot("a < b", "s", "ms", [(0.0, 1.0), (1.0, 3.0)])
    assert "a &lt; b" in made and "<polyline" in made
    assert "http://" not in made and "<script" not in made


@pytest.mark.parametrize(
    "flags",
    [
        ["--duration", "0"],
        ["--least", "100"],
        ["--latency-ms", "-1"],
        ["--target", "http", "--address", "a:1"],
        ["--target", "http", "--sut", "native"],
        ["--server-cpus", "none"],
        ["--server-cpus", "0-4095"],
        ["--server-cpus", "4095"],
        ["--server-cpus", "0-99999999999"],
        ["--server-cpus", "1-0"],
        ["--server-cpus", "0", "--target", "engine"],
        ["--server-cpus", "0", "--address", "a:1"],
    ],
)
def test_flags_that_will_not_do_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--scenario", "Server", *flags])
    assert caught.value.code == 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_server_and_harness_have_processors_of_their_own() -> None:
    before = os.sched_getaffinity(0)
    first = min(before)
    show = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    with kept_off(parse_cpus(f"{first}-{first}")) as command:
        assert os.sched_getaffinity(0) == before - {first}
        found = subprocess.run([*command, *show], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"[{first}]"
    assert os.sched_getaffinity(0) == before
