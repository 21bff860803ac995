"""Device accounting: this machine's measured peak, a model's operations, utilisation, cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from mlperf.workloads import Workload
from onnx import TensorProto, helper

from penstock.operations import count
from penstock.operations.shapes import let_go_of_weights

_SIDE = 1024
_ONE_DTYPE = {"fp32": (TensorProto.FLOAT, np.float32), "int8": (TensorProto.INT8, np.int8)}


@dataclass(frozen=True)
class Peak:
    """Operations per second (a multiplication and an addition are two) of a large GEMM."""

    precision: str
    operations_per_s: float
    backend: str


def measure_peaks(seconds: float = 0.5) -> list[Peak]:
    """The best of GEMMs of 1024 x 1024 x 1024: fp32, int8 by ONNX Runtime, bf16 by OpenVINO.

    What this machine or its packages cannot do is left out.
    """
    peaks = [Peak(name, _onnxruntime(name, seconds), "onnxruntime") for name in _ONE_DTYPE]
    bf16 = _openvino_bf16(seconds)
    return peaks + ([Peak("bf16", bf16, "openvino")] if bf16 else [])


def _best(run: Any, seconds: float) -> float:
    run()
    end = perf_counter() + seconds
    best_s = math.inf
    while perf_counter() < end:
        began = perf_counter()
        run()
        best_s = min(best_s, perf_counter() - began)
    return 2 * _SIDE**3 / best_s


def _gemm(precision: str) -> bytes:
    kind = _ONE_DTYPE[precision][0]
    output = TensorProto.INT32 if precision == "int8" else kind
    operator = "MatMulInteger" if precision == "int8" else "MatMul"
    shape = [_SIDE, _SIDE]
    weights = np.random.default_rng(1).integers(-8, 8, shape).astype(_ONE_DTYPE[precision][1])
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "gemm",
        [helper.make_tensor_value_info("a", kind, shape)],
        [helper.make_tensor_value_info("c", output, shape)],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def _onnxruntime(precision: str, seconds: float) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(_gemm(precision), providers=["CPUExecutionProvider"])
    left = np.ones((_SIDE, _SIDE), _ONE_DTYPE[precision][1])
    return _best(lambda: session.run(None, {"a": left}), seconds)


def _openvino_bf16(seconds: float) -> float:
    """0 where OpenVINO is not installed, or this processor has no bf16."""
    try:
        import openvino
    except ImportError:
        return 0.0
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return 0.0
    hint = {"INFERENCE_PRECISION_HINT": "bf16"}
    compiled = core.compile_model(core.read_model(_gemm("fp32")), "CPU", hint)
    request = compiled.create_infer_request()
    left = np.ones((_SIDE, _SIDE), np.float32)
    return _best(lambda: request.infer({"a": left}, share_inputs=True), seconds)


def operations_of(workload: Workload) -> float | None:
    """Operations of a sample, the mean of all; None where there is no graph to count them in."""
    if not workload.onnx:
        return None
    shapes = Counter(
        tuple((name, row.shape) for name, row in workload.rows(sample).items())
        for sample in range(workload.size)
    )
    graph = _without_weights(workload.onnx)
    total = sum(_count(graph, dict(shape)) * times for shape, times in shapes.items())
    return total / workload.size


def count_operations(model: bytes, shapes: Mapping[str, Sequence[int]]) -> int:
    """Operations of a run, as the server counts them; a multiplication and an addition are two.

    Args:
        model: ONNX.
        shapes: of its inputs, by name.

    Raises:
        ValueError: a shape that they need is unknown, or an operator is.
    """
    return _count(_without_weights(model), shapes)


def _without_weights(model: bytes) -> onnx.ModelProto:
    """Their shapes are what counts, not gigabytes."""
    proto = onnx.load_from_string(model)
    let_go_of_weights(proto.graph)
    return proto


def _count(model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]]) -> int:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    return count.count_operations(proto, inputs)


def table(
    operations: float | None, peaks: list[Peak], rate: float, price_per_hour: float | None
) -> list[tuple[str, str]]:
    """What was achieved of the peak, and what a million inferences cost."""
    counted = "operations of an inference (products, convolutions, attention)"
    rows = [(counted, "unknown: the model is Python, there is no graph to count them in")]
    if operations is not None:
        achieved = operations * rate
        rows = [(counted, f"{operations / 1e6:,.4g} million")]
        rows.append(("achieved", f"{achieved / 1e9:,.2f} GOPS"))
    for peak in peaks:
        value = f"{peak.operations_per_s / 1e9:,.1f} GOPS ({peak.backend})"
        rows.append((f"peak {peak.precision}, measured", value))
    if operations is not None:
        share = achieved / peaks[0].operations_per_s
        rows.append(("utilisation of the fp32 peak", f"{100 * share:.2f} %"))
    if price_per_hour is not None and rate > 0:
        cost = price_per_hour / 3600 / rate * 1e6
        rows.append(("cost of a million inferences", f"{cost:.4g} at {price_per_hour:g} an hour"))
    return rows


def machines_for(rate: float, one_machine: float) -> int:
    """How many machines a rate needs; 0 where one reaches nothing."""
    return math.ceil(rate / one_machine) if one_machine > 0 else 0
