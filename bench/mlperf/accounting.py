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
from onnx import TensorProto, helper, shape_inference

_SIDE = 1024
_FEW = 1024  # elements, of constants that shapes may be made of
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
    """Operations of a run in MatMul, Gemm and Conv; a multiplication and an addition are two.

    Args:
        model: ONNX.
        shapes: of its inputs, by name.

    Raises:
        ValueError: a shape that they need is unknown.
    """
    return _count(_without_weights(model), shapes)


def _without_weights(model: bytes) -> onnx.ModelProto:
    """The model with large weights as inputs: their shapes are what counts, not gigabytes."""
    proto = onnx.load_from_string(model)
    kept = []
    for weight in proto.graph.initializer:
        if math.prod(weight.dims) <= _FEW:
            kept.append(weight)
        else:
            value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            proto.graph.input.append(value)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


def _count(model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]]) -> int:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for value in proto.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, inputs.get(value.name, ()), strict=False
        ):
            dim.Clear()
            dim.dim_value = size
    for value in [*proto.graph.output, *proto.graph.value_info]:
        value.type.tensor_type.shape.dim[0].Clear()
    inferred = shape_inference.infer_shapes(proto, data_prop=True).graph
    known = {each.name: list(each.dims) for each in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        known[value.name] = [each.dim_value for each in dims]
    return sum(_operations(node, known) for node in inferred.node)


def _operations(node: Any, shapes: dict[str, list[int]]) -> int:
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return 0
    output = shapes.get(node.output[0], [])
    left, right = (shapes.get(name, []) for name in node.input[:2])
    if node.op_type == "Conv":
        terms = math.prod(right[1:]) if right else 0
    elif node.op_type == "Gemm":
        is_transposed = any(each.name == "transA" and each.i for each in node.attribute)
        terms = left[0 if is_transposed else -1] if left else 0
    else:
        # One side is enough: weights are known where the batch is lost on the way.
        terms = right[-2] if len(right) > 1 else 0
    operations = 2 * math.prod(output) * terms if output else 0
    if operations <= 0:
        name = node.name or node.output[0]
        raise ValueError(f"operations of node '{name}' ({node.op_type}): shape {output} unknown")
    return operations


def table(
    operations: float | None, peaks: list[Peak], rate: float, price_per_hour: float | None
) -> list[tuple[str, str]]:
    """What was achieved of the peak, and what a million inferences cost."""
    counted = "operations of an inference (MatMul, Gemm, Conv)"
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
