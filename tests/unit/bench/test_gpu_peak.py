"""bench/gpu: the measured peak, what a sample costs, and the shares of one that the other makes."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gpu import bare_loop, peak, steps
from gpu.bars import OPERATIONS
from gpu.running import LeftOut, Ran
from gpu.step import Context
from gpu.table import Outcome, Row, markdown
from mlperf.workloads import Workload
from tests.support.gpu_samples import H200

PEAK = Outcome("peak", "done", (Row("peak", "fp32", "operations/s", 1e12, 9e11, 2e12),))
COST = Row.single("bert: the CUDA provider alone", OPERATIONS, "operations", 2e9)


def context_of(
    tmp_path: Path, output: str, found: dict[str, Outcome] | None = None, status: int = 0
) -> Context:
    def runner(command: Sequence[str], limit_s: float) -> Ran:
        return Ran(status, output)

    return Context(H200, runner, tmp_path, models=["bert"], found=found or {})


def printed(*rows: Row) -> str:
    keys = ("table", "what", "unit", "median", "least", "greatest")
    return "".join(json.dumps({key: getattr(row, key) for key in keys}) + "\n" for row in rows)


def rate(samples_per_s: float) -> Row:
    return Row.single("bert: the CUDA provider alone", "batches of 8", "samples/s", samples_per_s)


def test_peak_is_two_operations_for_each_multiplication() -> None:
    calls: list[int] = []
    found = peak.rates(lambda: calls.append(1), 0.0, side=100)
    assert len(found) == 3
    assert len(calls) == 4, "the first is not measured"
    line = peak.line("fp16", [3.0, 1.0, 2.0], "CuPy")
    assert line["table"].endswith(" by CuPy")
    assert (line["median"], line["least"], line["greatest"]) == (2.0, 1.0, 3.0)
    Row(**line)


@pytest.mark.parametrize("precision", peak.PRECISIONS)
def test_product_runs_where_there_is_no_gpu(precision: str) -> None:
    onnx.checker.check_model(onnx.load_from_string(peak.product(precision, 16)), full_check=True)
    run: Any = peak.bound(precision, "CPUExecutionProvider", "cpu", 16)
    assert min(peak.rates(run, 0.0, 16)) > 0


def test_rates_have_their_share_of_the_peak(tmp_path: Path) -> None:
    context = context_of(tmp_path, printed(COST, rate(100.0)), {"peak": PEAK})
    cost, found = steps.ceiling(context)
    assert (cost, found) == (COST, Row(**{**vars_of(rate(100.0)), "share": 0.2}))


def vars_of(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


@pytest.mark.parametrize("found", [{}, {"peak": Outcome("peak", "left out")}])
def test_without_a_peak_there_is_no_share(tmp_path: Path, found: dict[str, Outcome]) -> None:
    context = context_of(tmp_path, printed(COST, rate(100.0)), found)
    assert list(steps.ceiling(context)) == [COST, rate(100.0)]


def test_without_a_count_there_is_no_share(tmp_path: Path) -> None:
    context = context_of(tmp_path, printed(rate(100.0)), {"peak": PEAK})
    assert list(steps.ceiling(context)) == [rate(100.0)]


def test_served_rates_take_the_count_of_the_ceiling(tmp_path: Path) -> None:
    facts = {"answers per second": "50.0", "result": "VALID", "latency p99 (LoadGen)": "8.0 ms"}
    results = {"Result": list(facts.items())}

    def served(command: Sequence[str], limit_s: float) -> Ran:
        folder = Path(command[command.index("--output") + 1])
        folder.mkdir(exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"tables": results}))
        return Ran(0, "")

    ceiling = Outcome("ceiling", "done", (COST, rate(100.0)))
    found = {"peak": PEAK, "ceiling": ceiling}
    context = Context(H200, served, tmp_path, models=["bert"], found=found)
    rows = [each for each in steps._serve("Server", "engine")(context) if isinstance(each, Row)]
    assert [(row.what, row.share) for row in rows] == [("bert", 0.1), ("bert, p99", None)]


def test_peak_that_cannot_be_measured_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(LeftOut, match="install onnxruntime-gpu"):
        list(steps.peak(context_of(tmp_path, "install onnxruntime-gpu\n", status=4)))


def test_table_has_a_column_where_there_are_shares() -> None:
    rows = (COST, Row("t", "other", "us", 1.0, 1.0, 1.0), rate(100.0))
    shared = (*rows[:2], Row(**{**vars_of(rows[2]), "share": 0.1234}))
    with_shares = markdown({}, [Outcome("ceiling", "done", shared)]).splitlines()
    assert "| bert: the CUDA provider alone | | | of the peak |" in with_shares
    assert "| batches of 8 | 100 | samples/s | 12.3 % |" in with_shares
    assert "| operations of a sample | 2e+09 | operations | |" in with_shares
    assert "| other | 1 | us |" in with_shares
    assert "of the peak" not in markdown({}, [Outcome("ceiling", "done", rows)])


def test_share_is_kept() -> None:
    outcome = Outcome("ceiling", "done", (Row("t", "w", "samples/s", 1.0, 1.0, 1.0, 0.5),))
    assert Outcome.of(json.loads(json.dumps(asdict(outcome)))) == outcome


def test_cost_of_a_sample_is_counted_in_its_graph() -> None:
    model = peak.product("fp32", 16)
    rows = np.zeros((3, 16, 16), np.float32)
    inputs = {name: list(rows) for name in "ab"}
    row = bare_loop.cost("toy", Workload(name="toy", onnx=model, inputs=inputs, answer="c"))
    assert (row["what"], row["median"]) == (OPERATIONS, 2.0 * 16**3)
    assert row["table"] == "toy: the CUDA provider alone"
    Row(**row)
