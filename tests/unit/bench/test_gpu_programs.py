"""bench/gpu's own programs, as far as they go where there is no GPU."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from gpu import answers, bare_loop, client_memory, peak, provider, served
from gpu.bars import bars, ceiling_table, ceiling_what, not_valid, served_table
from gpu.step import LEFT_OUT_STATUS
from gpu.table import Outcome, Row
from mlperf import networks
from mlperf.workloads import WORKLOADS, Workload
from tests.support.fake_cupy import FakeCupy, LikeTorch

from penstock.codec._config_reader import read_config_text
from penstock.repository.completion import with_names
from penstock.repository.serving import backend_parameters
from penstock.repository.validation import config_faults, device_faults
from penstock_client import CudaMemory

ROOT = Path(__file__).parents[3]


def toy(rows: int = 4) -> Workload:
    """A product whose samples have two shapes."""
    values = [np.full((1, 2 + at % 2, 16), at, np.float32) for at in range(rows)]
    return Workload(name="toy", onnx=peak.product("fp32", 16), inputs={"a": values}, answer="c")


CPU = ["CPUExecutionProvider"]


def on_cpu(workload: Workload) -> Any:
    return onnxruntime.InferenceSession(workload.onnx, providers=CPU)


# ---- served


def test_configuration_of_a_model_on_a_gpu_says_how_far_its_shapes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "bert", lambda: b"")  # 440 MB
    workload = served.on_gpu(WORKLOADS["bert"]())
    workload.write_repository(tmp_path)
    read = read_config_text((tmp_path / "bert" / "config.pbtxt").read_text(), "config.pbtxt")
    assert config_faults(read.config, "bert") == []
    assert list(device_faults(read.config.instance_groups, "onnxruntime")) == []
    parameters = backend_parameters(with_names(read.config, "bert", "onnxruntime"))
    assert parameters["device_kind"] == "gpu"
    assert parameters["shape:input_ids"] == "128:384:384"
    assert parameters["max_batch_size"] == str(served.BATCHES["bert"]) == "64"
    assert parameters["lanes"] == str(served.LANES) == "2"
    assert workload.tolerance == served.TF32_TOLERANCE


def test_batches_stay_full_while_all_slots_of_all_lanes_are_under_way() -> None:
    """Of lengths that differ a simulation of the batcher wants 16 batches of samples."""
    slots, batch = 2 * served.LANES, 64
    workload = toy()
    assert served.window_of(workload, batch) == 4 * slots * batch == 1024
    workload.inputs = {"a": np.zeros((4, 16), np.float32)}
    assert served.window_of(workload, batch) == 2 * slots * batch
    assert served.on_gpu(workload).window == 2 * slots * workload.max_batch_size


def test_shapes_that_are_fixed_are_not_said() -> None:
    workload = toy()
    assert served.ranges_of(workload) == {"a": "2x16:3x16:3x16"}
    workload.inputs = {"a": np.zeros((4, 16), np.float32)}
    lanes = 'parameters { key: "lanes" value { string_value: "2" } }'
    assert (
        served.on_gpu(workload).config
        == f"instance_group {{ kind: KIND_GPU gpus: [0] }}\n{lanes}\n"
    )


def test_served_run_is_left_out_without_loadgen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(provider, "why_no_cuda_provider", lambda: "")
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    for module in ("mlperf.cli", "mlperf.settings"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as caught:
        served.main()
    assert caught.value.code == LEFT_OUT_STATUS
    assert capsys.readouterr().out == "mlperf_loadgen is not installed\n"


# ---- the ceiling


def test_ceiling_runs_the_provider_as_the_server_does() -> None:
    text = (ROOT / "csrc" / "backends" / "onnxruntime" / "gpu_settings.cc").read_text()
    assert text.count("cuda_.values.try_emplace(") == len(provider.SERVERS_OPTIONS)
    for name, value in provider.SERVERS_OPTIONS.items():
        assert f'cuda_.values.try_emplace("{name}", "{value}")' in text
    assert provider.provider(use_tf32="0")[1] == {**provider.SERVERS_OPTIONS, "use_tf32": "0"}


def test_ceiling_runs_every_shape_as_often_as_it_is_asked_for() -> None:
    workload = toy()
    workload.inputs["a"].append(workload.rows(0)["a"])  # type: ignore[union-attr]
    assert bare_loop.mixture(workload) == [0, 1, 0, 1, 0]


def test_ceiling_begins_with_the_batches_of_the_targets() -> None:
    """So that a step that is cut has them."""
    for model, batch in served.BATCHES.items():
        first, *others = bare_loop.sizes_of(model, 3.0)
        assert first == (batch, 3.0)
        assert sorted([batch, *(size for size, _ in others)]) == sorted(bare_loop.SIZES)
        assert {seconds for _, seconds in others} == {1.0}
    assert [size for size, _ in bare_loop.sizes_of("toy", 3.0)] == list(bare_loop.SIZES)
    assert served.LANES in bare_loop.THREADS, "which the targets are of"


class Session:
    """Of ONNX Runtime's, with what was run."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def run_with_iobinding(self, binding: Any) -> None:
        self.ran.append(binding)


def test_batches_of_the_ceiling_are_warm_and_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    monkeypatch.setattr(bare_loop, "_binding", lambda session, rows, count, device: rows["a"].shape)
    run = bare_loop.bound(session, toy(), 8)
    assert session.ran == [(1, 2, 16), (1, 3, 16)]
    for _ in range(3):
        run()
    assert session.ran[2:] == [(1, 2, 16), (1, 3, 16), (1, 2, 16)]


def test_batches_of_two_sizes_take_turns() -> None:
    ran: list[int] = []
    run = bare_loop.in_turn(lambda: ran.append(8), lambda: ran.append(4))
    for _ in range(3):
        run()
    assert ran == [8, 4, 8]


def test_batches_of_the_ceiling_are_bound_to_a_device() -> None:
    workload = toy()
    workload.inputs = {"a": np.ones((1, 16, 16), np.float32), "b": np.ones((1, 16, 16), np.float32)}
    values = {name: rows[0] for name, rows in workload.inputs.items()}
    session = on_cpu(workload)
    binding = bare_loop._binding(session, values, 1, "cpu")
    session.run_with_iobinding(binding)
    assert (binding.get_outputs()[0].numpy() == 16).all()


def test_rates_count_the_rows_of_all_threads() -> None:
    found = bare_loop.rates([lambda: None, lambda: None], 4, 0.03)
    assert len(found) == 3
    assert min(found) > 0


# ---- answers


def answer_of(change: Callable[[Any], Any]) -> Any:
    """A session whose answers are the CPU's, changed."""
    workload = one_shape()
    session = on_cpu(workload)
    return SimpleNamespace(run=lambda *a: [change(each) for each in session.run(*a)])


def one_shape() -> Workload:
    inputs = {name: [np.ones((16, 16), np.float32)] * 3 for name in "ab"}
    return Workload(name="toy", onnx=peak.product("fp32", 16), inputs=inputs, answer="c")


@pytest.mark.parametrize(
    ("change", "off"),
    [
        (lambda answer: answer, 0.0),
        (lambda answer: answer + 1.7, 0.1),
        (lambda answer: answer * np.nan, np.inf),
        (lambda answer: answer[:1], np.inf),
    ],
    ids=["equal", "off", "no number", "shape"],
)
def test_difference_is_relative_and_absolute(change: Callable[[Any], Any], off: float) -> None:
    found = answers.greatest_difference(one_shape(), answer_of(change), range(3))
    assert found == pytest.approx(off)


def test_answers_have_a_bound_for_each_precision() -> None:
    line = answers.line("bert", "use_tf32=0", 1e-3, 5e-4)
    assert line["what"] == "use_tf32=0, at most 0.001"
    assert Row(**line).median == 5e-4
    assert [tolerance for *_, tolerance in answers.CASES] == [1e-3, served.TF32_TOLERANCE]


# ---- the peak


class FakeTorch(SimpleNamespace):
    """torch on a CPU that passes for a GPU, as far as the product needs it."""

    def __init__(self, has_gpu: bool = True) -> None:
        matmul = SimpleNamespace(allow_tf32=False)
        self.waits = 0
        super().__init__(
            cuda=SimpleNamespace(is_available=lambda: has_gpu, synchronize=self._wait),
            backends=SimpleNamespace(cuda=SimpleNamespace(matmul=matmul)),
            from_numpy=lambda values: SimpleNamespace(to=lambda device: values),
            empty_like=np.empty_like,
            matmul=np.matmul,
        )

    def _wait(self) -> None:
        self.waits += 1


def test_peak_is_measured_by_whoever_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    reason = "ONNX Runtime has no CUDA provider here: install onnxruntime-gpu"
    assert peak.choose() == f"{reason}, and torch is not installed, and CuPy is not installed"
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(has_gpu=False))
    cupy = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert peak.choose()[0] == "CuPy"
    monkeypatch.setitem(sys.modules, "torch", FakeTorch())
    assert peak.choose()[0] == "torch"
    monkeypatch.setattr(peak, "why_no_cuda_provider", lambda: "")
    assert peak.choose()[0] == "ONNX Runtime"


def test_products_of_torch_and_cupy_are_over_when_they_return() -> None:
    torch = FakeTorch()
    run = peak.by_torch(torch, "fp32", side=16)
    assert min(peak.rates(run, 0.0, 16)) > 0
    assert torch.waits == 4
    assert torch.backends.cuda.matmul.allow_tf32
    cupy = FakeCupy()
    for name in ("asarray", "empty_like", "matmul"):
        setattr(cupy, name, getattr(np, name))
    assert min(peak.rates(peak.by_cupy(cupy, "fp16", 16), 0.0, 16)) > 0
    assert cupy.stream.waits == 4


# ---- memory of clients


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    for name in ("arange", "full", "float32", "int32", "uint16"):
        setattr(fake, name, getattr(np, name))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


def test_client_memory_is_left_out_without_cupy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit) as caught:
        client_memory.main([])
    assert caught.value.code == LEFT_OUT_STATUS
    assert "needs the package CuPy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong"), [(client_memory.put_bits, "array"), (client_memory.read_back, "read")]
)
def test_check_of_client_memory_finds_what_is_wrong(
    check: client_memory.Check,
    wrong: str,
    cupy: FakeCupy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with CudaMemory.create(1 << 20) as memory:
        client_memory.timed(check, cupy, memory)
        row = json.loads(capsys.readouterr().out)
        assert row["what"].startswith("cupy: ")
        Row(**row)
        zeros = memory.array("UINT8", (16,), 512 << 10)
        monkeypatch.setattr(CudaMemory, wrong, lambda *a: zeros)
        with pytest.raises(AssertionError, match="did not arrive as it was"):
            client_memory.timed(check, cupy, memory)


def test_gradient_that_is_taken_is_a_failure(cupy: FakeCupy) -> None:
    refusing = LikeTorch(np.ones(4, np.float32), refuses=RuntimeError("requires grad"))
    with CudaMemory.create(1 << 20) as memory:
        torch = SimpleNamespace(ones=lambda *a, **k: refusing)
        client_memory.refuse_gradient(torch, memory)
        torch.ones = lambda *a, **k: np.ones(4, np.float32)
        with pytest.raises(AssertionError, match="was taken"):
            client_memory.refuse_gradient(torch, memory)


# ---- the targets


def rate(table: str, what: str, median: float, spread: float = 0.0) -> Row:
    return Row(table, what, "samples/s", median, median - spread, median + spread)


def measured(offline: float, server: float, grpc: float, note: str = "") -> list[Outcome]:
    at_batch = ceiling_what(served.BATCHES["bert"], served.LANES)
    return [
        Outcome("ceiling", "done", (rate(ceiling_table("bert"), at_batch, 100.0, 10.0),)),
        Outcome("offline", "done", (rate(served_table("Offline", "engine"), "bert", offline),)),
        Outcome(
            "server",
            "done",
            (rate(served_table("Server", "engine"), "bert", server),),
            (note,) if note else (),
        ),
        Outcome("grpc", "done", (rate(served_table("Offline", "grpc"), "bert", grpc),)),
    ]


def test_figures_are_held_against_their_targets_with_their_spread() -> None:
    made = bars(measured(98.0, 80.0, 85.0))
    assert made is not None
    offline, server, grpc = made.rows
    assert offline.what == "bert: Offline in process, of the ceiling (at least 97: reached)"
    assert offline.median == pytest.approx(98.0)
    assert offline.least == pytest.approx(98 / 1.1)
    assert offline.greatest == pytest.approx(98 / 0.9)
    assert server.what == "bert: Server in process, of Offline (at least 85: missed)"
    assert grpc.what == "bert: Offline over gRPC, of the ceiling (at least 80: reached)"


def test_run_that_is_not_valid_reaches_no_target() -> None:
    made = bars(measured(98.0, 97.0, 85.0, note=not_valid("bert", "INVALID")))
    assert made is not None
    assert made.rows[1].what.endswith("(at least 85: of runs that are not VALID)")


def test_other_notes_of_a_run_are_no_reason_against_it() -> None:
    for note in ("the system under test of bert was native (C++)", "of bert 87.0/s were asked"):
        made = bars(measured(98.0, 97.0, 85.0, note=note))
        assert made is not None
        assert made.rows[1].what.endswith("(at least 85: reached)")


def test_lanes_are_held_against_the_bare_loop_and_graphs_against_none() -> None:
    rows = []
    for table, factor in (("lanes: images in and out", 0.9), ("bare loop: images in and out", 1)):
        for graphs, value in (("graphs", 150.0), ("no graphs", 100.0)):
            for size in (8, 16):
                what = f"2 lanes, {graphs}, batches of {size}"
                rows.append(rate(table, what, factor * value, 1.0))
    made = bars([Outcome("lanes", "done", tuple(rows))])
    assert made is not None
    by_name = {(row.table, row.what): row for row in made.rows}
    shares = by_name["lanes, of the bare loop", "2 lanes, graphs, batches of 8"]
    assert shares.median == pytest.approx(90.0)
    gained = by_name["gained by graphs", "lanes, 2 lanes, batches of 8"]
    assert gained.median == pytest.approx(50.0)
    assert gained.least == pytest.approx(100 * 134 / 91 - 100)
    assert ("gained by graphs", "lanes, 2 lanes, batches of 16") not in by_name


def test_rate_without_a_right_answer_is_no_divisor() -> None:
    made = bars(measured(0.0, 80.0, 85.0))
    assert made is not None
    assert [row.what.partition(" (")[0] for row in made.rows] == [
        "bert: Offline in process, of the ceiling",
        "bert: Offline over gRPC, of the ceiling",
    ]
    rows = [
        rate(table, f"2 lanes, {graphs}, batches of 8", 0.0)
        for table in ("lanes: images in and out", "bare loop: images in and out")
        for graphs in ("graphs", "no graphs")
    ]
    assert bars([Outcome("lanes", "done", tuple(rows))]) is None


def test_nothing_measured_has_no_targets() -> None:
    assert bars([Outcome("build", "done")]) is None
