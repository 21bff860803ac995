"""Networks as ONNX with seeded random weights: worthless in what they say, true in their cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class BertShape:
    """BERT-base, unless a test wants less."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 30_522
    most_tokens: int = 512

    @property
    def head_width(self) -> int:
        return self.width // self.heads


BERT_BASE = BertShape()


class _Graph:
    """Nodes and weights as they are added; each value is named after its number."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def normal(self, *shape: int, scale: float) -> str:
        values = self.random.standard_normal(shape, np.float32) * np.float32(scale)
        return self.constant(values)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(self, name: str, inputs: Any, answer: str, outputs: Any) -> bytes:
        self.nodes.append(helper.make_node("Identity", [answer], [outputs.name]))
        graph = helper.make_graph(self.nodes, name, [inputs], [outputs], self.weights)
        opsets = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(made)
        content: bytes = made.SerializeToString()
        return content


def resnet50(seed: int = 0) -> bytes:
    """ResNet-50 v1.5, batch norms folded: the stride is on the 3x3 convolution.

    Input `image` [n, 3, 224, 224], output `logits` [n, 1000], float32.
    """
    graph = _Graph(seed)

    def conv(x: str, inputs: int, outputs: int, size: int, stride: int = 1) -> str:
        weights = graph.normal(outputs, inputs, size, size, scale=(2 / (inputs * size**2)) ** 0.5)
        bias = graph.constant(np.zeros(outputs, np.float32))
        return graph.add("Conv", x, weights, bias, strides=[stride] * 2, pads=[size // 2] * 4)

    def block(x: str, inputs: int, width: int, stride: int) -> str:
        y = graph.add("Relu", conv(x, inputs, width, 1))
        y = graph.add("Relu", conv(y, width, width, 3, stride))
        y = conv(y, width, width * 4, 1)
        if stride != 1 or inputs != width * 4:
            x = conv(x, inputs, width * 4, 1, stride)
        damped = graph.add("Mul", y, graph.constant(np.float32(0.1)))
        return graph.add("Relu", graph.add("Add", damped, x))

    x = graph.add("Relu", conv("image", 3, 64, 7, 2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            x = block(x, inputs, width, stride if index == 0 else 1)
            inputs = width * 4
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.add("MatMul", x, graph.normal(2048, 1000, scale=0.01))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1000])
    return graph.model("resnet50", image, x, logits)


def bert(seed: int = 0, shape: BertShape = BERT_BASE) -> bytes:
    """BERT-base's encoder: 12 layers of 768 in 12 heads, 110 million weights; no mask, no segments.

    Input `input_ids` [n, tokens] int64, up to 512 tokens; output `pooled` [n, 768] float32.
    """
    graph = _Graph(seed)
    words = graph.normal(shape.vocabulary, shape.width, scale=0.5)
    x = graph.add("Add", graph.add("Gather", words, "input_ids"), _places(graph, shape))
    x = _normalised(graph, x, shape.width)
    for _ in range(shape.layers):
        x = _encoder_layer(graph, x, shape)
    first = graph.add("Gather", x, graph.constant(np.int64(0)), axis=1)
    pooled = graph.add("Tanh", _linear(graph, first, shape.width, shape.width))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "tokens"])
    output = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", shape.width])
    return graph.model("bert", ids, pooled, output)


def _places(graph: _Graph, shape: BertShape) -> str:
    """Embeddings of as many positions as the request has tokens."""
    all_places = graph.normal(shape.most_tokens, shape.width, scale=0.5)
    first = graph.constant(np.array([0], np.int64))
    axis = graph.constant(np.array([0], np.int64))
    tokens = graph.add("Shape", "input_ids", start=1, end=2)
    return graph.add("Slice", all_places, first, tokens, axis)


def _linear(graph: _Graph, x: str, inputs: int, outputs: int) -> str:
    product = graph.add("MatMul", x, graph.normal(inputs, outputs, scale=inputs**-0.5))
    return graph.add("Add", product, graph.constant(np.zeros(outputs, np.float32)))


def _encoder_layer(graph: _Graph, x: str, shape: BertShape) -> str:
    width = shape.width
    split = graph.constant(np.array([0, 0, shape.heads, shape.head_width], np.int64))
    join = graph.constant(np.array([0, 0, width], np.int64))

    def head(order: list[int]) -> str:
        parts = graph.add("Reshape", _linear(graph, x, width, width), split)
        return graph.add("Transpose", parts, perm=order)

    scale = graph.constant(np.float32(shape.head_width**-0.5))
    scores = graph.add("MatMul", head([0, 2, 1, 3]), head([0, 2, 3, 1]))
    weights = graph.add("Softmax", graph.add("Mul", scores, scale), axis=-1)
    mixed = graph.add("MatMul", weights, head([0, 2, 1, 3]))
    merged = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), join)
    x = _normalised(graph, graph.add("Add", x, _linear(graph, merged, width, width)), width)
    inner = _gelu(graph, _linear(graph, x, width, 4 * width))
    return _normalised(graph, graph.add("Add", x, _linear(graph, inner, 4 * width, width)), width)


def _gelu(graph: _Graph, x: str) -> str:
    erf = graph.add("Erf", graph.add("Mul", x, graph.constant(np.float32(0.5**0.5))))
    halves = graph.add("Mul", x, graph.constant(np.float32(0.5)))
    return graph.add("Mul", halves, graph.add("Add", erf, graph.constant(np.float32(1))))


def _normalised(graph: _Graph, x: str, width: int) -> str:
    ones = graph.constant(np.ones(width, np.float32))
    zeros = graph.constant(np.zeros(width, np.float32))
    return graph.add("LayerNormalization", x, ones, zeros, axis=-1)
