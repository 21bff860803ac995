"""The shapes of a graph's tensors, from those of its inputs, by ONNX's own inference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper, inliner, shape_inference

from penstock.operations.contractions import GIVES, Node, ShapesUnknownError
from penstock.operations.text import shown

__all__ = ["Shapes", "infer", "let_go_of_weights", "node_of"]

Shapes = dict[str, tuple[int, ...]]

_FEW = 1024  # elements, of constants that shapes may be made of
_MOST_ROUNDS = 512


def infer(
    model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]]
) -> tuple[onnx.ModelProto, Shapes]:
    """The model as it was inferred, with functions of its own written out, and what is known.

    Args:
        model: is changed.
        inputs: dims of inputs, -1 = open, which every dim of another one is that has no number.

    Raises:
        ValueError: an input does not exist, or has another number of dims.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    let_go_of_weights(model.graph)
    _set_inputs(model.graph, inputs)
    del model.graph.value_info[:]  # of another batch, maybe
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for _ in range(_MOST_ROUNDS):
        inferred = shape_inference.infer_shapes(model, data_prop=True)
        known = dict(_known(inferred.graph))
        if not _add_known(model.graph, known):
            break
    return inferred, known


def node_of(node: onnx.NodeProto, known: Shapes) -> Node:
    """The operator with the shapes of its tensors."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return Node(
        f"{domain}{node.op_type}",
        [known.get(name) if name else None for name in node.input],
        [known.get(name) if name else None for name in node.output],
        {each.name: _plain(helper.get_attribute_value(each)) for each in node.attribute},
    )


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def let_go_of_weights(graph: onnx.GraphProto) -> None:
    """Large weights, and those in files of their own, become inputs: their shapes are enough."""
    given = {each.name for each in graph.input}
    kept = []
    for weight in graph.initializer:
        is_elsewhere = weight.data_location == onnx.TensorProto.EXTERNAL
        if math.prod(weight.dims) <= _FEW and not is_elsewhere:
            kept.append(weight)
        elif weight.name not in given:
            graph.input.append(_value(weight.name, weight.data_type, weight.dims))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for sparse in graph.sparse_initializer:
        values = sparse.values
        if values.name not in given:
            graph.input.append(_value(values.name, values.data_type, sparse.dims))
    del graph.sparse_initializer[:]


def _value(name: str, kind: int, dims: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(dims))


def _set_inputs(graph: onnx.GraphProto, inputs: Mapping[str, Sequence[int]]) -> None:
    by_name = {each.name: each.type.tensor_type.shape.dim for each in graph.input}
    for dim in (dim for dims in by_name.values() for dim in dims):
        if dim.dim_value < 0:  # as some exporters write what is open
            dim.Clear()
    for name, dims in inputs.items():
        found = by_name.get(name)
        if found is None:
            raise ValueError(f"the graph has no input '{shown(name)}'")
        if len(found) != len(dims):
            got = shown(str(list(dims)))
            raise ValueError(f"input '{shown(name)}' has {len(found)} dimensions, got {got}")
        for dim, size in zip(found, dims, strict=True):
            if size >= 0:
                dim.Clear()
                dim.dim_value = size


def _known(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for weight in graph.initializer:
        if min(weight.dims, default=0) >= 0:
            yield weight.name, tuple(weight.dims)
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            continue
        dims = tensor.shape.dim
        if all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
            yield value.name, tuple(dim.dim_value for dim in dims)


def _add_known(graph: onnx.GraphProto, known: Shapes) -> bool:
    """Says what ONNX Runtime's own operators give; whether there was anything new."""
    is_new = False
    for each in graph.node:
        gives = GIVES.get(f"{each.domain}.{each.op_type}")
        if gives is None or not each.output or each.output[0] in known:
            continue
        try:
            shape = gives(node_of(each, known))
        except (ShapesUnknownError, IndexError):
            continue
        graph.value_info.append(_value(each.output[0], onnx.TensorProto.FLOAT, shape))
        is_new = True
    return is_new
