"""What a row costs, counted by a server that is scraped, and what of the peak that is."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.fixture_models import write_plan
from tests.support.http import ask
from tests.support.models import onnx_files
from tests.support.run_server import RunningServer, run_server, server_config

from penstock_client import AsyncClient

pytestmark = pytest.mark.any_transport

NAME = "penstock_model_operations_per_inference"
PEAK = "penstock_model_peak_operations_per_second"
DECLARED = 'parameters { key: "%s" value { string_value: "%d" } }'
README = Path(__file__).parents[2] / "server" / "README.md"


def product(width: int, columns: int, *more: int | str) -> onnx.ModelProto:
    """x [n, more..., width] times a matrix: 2 x width x columns operations a row and more."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="the product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *more, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *more, columns])],
        [numpy_helper.from_array(np.ones((width, columns), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


async def scrape_until(
    server: RunningServer, is_so: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    """The first scrape of which it is so."""
    while True:
        text = (await ask(server.metrics_port, "/metrics")).body.decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        if is_so(seen := {name: float(value) for name, value in lines}):
            return seen


def of(name: str, model: str) -> str:
    return f'{name}{{model="{model}",version="1"}}'


async def test_rows_of_a_served_graph_are_counted(tmp_path: Path) -> None:
    onnx_files.write_model(tmp_path, "fixed", product(64, 10))
    onnx_files.write_model(tmp_path, "wide", product(64, 10, 7))
    config = DECLARED % ("operations_per_inference", 5)
    onnx_files.write_model(tmp_path, "declared", product(64, 10), config=config)
    settings = server_config(tmp_path, peak_operations=("CPU=1e9",))
    async with run_server(settings) as server, AsyncClient(server.grpc_address) as client:
        await client.infer("fixed", {"x": np.ones((3, 64), np.float32)})
        counted = [of(NAME, "fixed"), of(NAME, "wide")]
        seen = await scrape_until(server, lambda it: all(name in it for name in counted))
    assert [seen[name] for name in counted] == [2 * 640, 7 * 2 * 640]
    assert seen[of(NAME, "declared")] == 5
    assert seen[of(PEAK, "fixed")] == 1e9
    # The quotient of the page: each of its series has these labels and no others.
    page = README.read_text().partition("### How much of a device")[2].partition("```\n")[2]
    names = re.findall(r"\b(?:nv|penstock)_\w+", page.partition("```")[0])
    assert len(names) == 4
    assert all(of(name, "fixed") in seen for name in names)
    assert seen[of("nv_inference_count", "fixed")] == 3


async def test_open_dimension_is_told_in_the_log_and_not_guessed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_files.write_model(tmp_path, "open", product(64, 10, "tokens"))
    onnx_files.write_model(tmp_path, "then", product(64, 10))
    with caplog.at_level("INFO", logger="penstock.operations"):
        async with run_server(server_config(tmp_path)) as server:
            # They are counted one after the other, by name.
            seen = await scrape_until(server, lambda it: of(NAME, "then") in it)
    assert of(NAME, "open") not in seen
    assert of(PEAK, "then") not in seen
    (line,) = [each for each in caplog.messages if "'open'" in each]
    assert "node 'the product' (MatMul) has shapes that are not known; left open: x" in line


async def test_nothing_is_counted_where_it_is_switched_off(tmp_path: Path) -> None:
    config = DECLARED % ("operations_per_inference", 5)
    onnx_files.write_model(tmp_path, "declared", product(64, 10), config=config)
    onnx_files.write_model(tmp_path, "fixed", product(64, 10))
    settings = server_config(tmp_path, count_operations=False)
    async with run_server(settings) as server:
        seen = await scrape_until(server, lambda it: of(NAME, "declared") in it)
        again = await scrape_until(server, lambda it: of(NAME, "declared") in it)
    assert [name for name in (*seen, *again) if name.startswith(NAME)] == [of(NAME, "declared")] * 2


async def test_peak_of_a_model_is_that_of_all_its_devices(tmp_path: Path) -> None:
    write_plan(tmp_path, "both", device="0,1")
    own = {"peak_operations_per_second": "7"}
    write_plan(tmp_path, "own", **own)
    settings = server_config(tmp_path, peak_operations=("GPU=2e14", "CPU=1"))
    async with run_server(settings) as server:
        seen = await scrape_until(server, lambda it: of(PEAK, "both") in it)
    assert seen[of(PEAK, "both")] == 4e14
    assert seen[of(PEAK, "own")] == 7
    assert of(NAME, "both") not in seen


async def test_plan_has_what_was_counted_when_it_was_built(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "plan") / "1" / "model.plan"
    digest = hashlib.sha256(plan.read_bytes()).hexdigest()
    sidecar = {"key": "k", "recipe": {}, "sha256": digest, "operations_per_inference": 640}
    plan.with_name("model.plan.json").write_text(json.dumps(sidecar))
    async with run_server(server_config(tmp_path)) as server:
        seen = await scrape_until(server, lambda it: of(NAME, "plan") in it)
    assert seen[of(NAME, "plan")] == 640
