"""What an operator multiplies and adds: two operations for each multiplication and its addition.

Pure functions of shapes. Contractions are exact: matrix products, convolutions, recurrences,
attention. What computes element by element, reduces or moves data is left out: it is no work for
what a peak is measured with. An operator that is neither is unknown, and so is its model's count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONTRACTIONS", "GIVES", "Node", "ShapesUnknownError", "is_left_out"]

Shape = tuple[int, ...]


class ShapesUnknownError(Exception):
    """A shape that the count needs is not known."""


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with the shapes of its tensors.

    Attributes:
        operator: "MatMul", or with its domain where that is not ONNX's own.
        inputs: by position; None = not known, or not there.
        outputs: likewise.
        attributes: numbers, texts and lists of them, by name.
    """

    operator: str
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def input(self, at: int) -> Shape:
        """The shape of an input that is known."""
        return self._known(self.inputs, at)

    def output(self, at: int = 0) -> Shape:
        """The shape of an output that is known."""
        return self._known(self.outputs, at)

    def has(self, at: int) -> bool:
        """Whether the input's shape is known."""
        return at < len(self.inputs) and self.inputs[at] is not None

    def number(self, name: str) -> int:
        """An attribute; 0 where it is not there."""
        return int(self.attributes.get(name, 0))

    def _known(self, shapes: Sequence[Shape | None], at: int) -> Shape:
        shape = shapes[at] if at < len(shapes) else None
        if shape is None:
            raise ShapesUnknownError
        return shape


def _product(node: Node, left: int = 0, right: int = 1, turned: tuple[str, str] = ("", "")) -> int:
    """The output's elements times the length of what is summed, which either factor tells."""
    elements = math.prod(node.output())
    if node.has(left):
        shape = node.input(left)
        is_turned = bool(turned[0]) and node.number(turned[0]) != 0 and len(shape) > 1
        return 2 * elements * shape[-2 if is_turned else -1]
    shape = node.input(right)
    is_turned = bool(turned[1]) and node.number(turned[1]) != 0
    return 2 * elements * shape[-1 if is_turned or len(shape) == 1 else -2]


def _convolution(node: Node, weights: int = 1) -> int:
    """Of weights [M, C / group, k...]."""
    return 2 * math.prod(node.output()) * math.prod(node.input(weights)[1:])


def _transposed_convolution(node: Node) -> int:
    """Of weights [C, M / group, k...]: each element of the input meets those of its channel."""
    return 2 * math.prod(node.input(0)) * math.prod(node.input(1)[1:])


def _recurrence(node: Node) -> int:
    """Of X, W [directions, gates, inputs] and R [directions, gates, state], at every step."""
    is_batch_first = node.number("layout") == 1
    sequence = node.input(0)
    steps, rows = (sequence[1], sequence[0]) if is_batch_first else sequence[:2]
    return 2 * steps * rows * (math.prod(node.input(1)) + math.prod(node.input(2)))


def _einsum(node: Node) -> int:
    """Of two factors without an ellipsis: every index once. Of one there is nothing to multiply."""
    equation = str(node.attributes.get("equation", "")).replace(" ", "")
    terms, _, result = equation.partition("->")
    factors = terms.split(",")
    if len(factors) == 1:
        return 0
    if len(factors) != 2 or "..." in equation or "->" not in equation:
        raise ShapesUnknownError
    sizes: dict[str, int] = {}
    for at, labels in enumerate(factors):
        if len(node.input(at)) != len(labels):
            raise ShapesUnknownError
        sizes.update(zip(labels, node.input(at), strict=True))
    is_summed = bool(sizes.keys() - set(result))
    return 2 * math.prod(sizes.values()) if is_summed else 0


def _attention(node: Node) -> int:
    """ONNX's own: scores and their sum of Q [B, H, L, E], K [B, h, S, E], V [B, h, S, F].

    Or Q [B, L, H * E] and the others likewise, with the numbers of heads as attributes.
    """
    query, key, value = (node.input(at) for at in range(3))
    if len(query) == 3:
        heads, kept = node.number("q_num_heads"), node.number("kv_num_heads")
        if heads < 1 or kept < 1:
            raise ShapesUnknownError
        batch, length, width = query[0], query[1], query[2] // heads
        steps, value_width = key[1], value[2] // kept
    else:
        batch, heads, length, width = query
        steps, value_width = key[2], value[3]
    if node.has(4):
        steps += node.input(4)[2]  # past_key
    return 2 * batch * heads * length * steps * (width + value_width)


def _fused_attention(node: Node) -> int:
    """ONNX Runtime's: the projection of [B, L, D] by [D, q + k + v], then as above."""
    rows, weights = node.input(0), node.input(1)
    if "past" in node.attributes or node.has(4) or "qkv_hidden_sizes" in node.attributes:
        raise ShapesUnknownError
    batch, length, _ = rows
    hidden = weights[1] // 3
    return 2 * batch * length * math.prod(weights) + 4 * batch * length * length * hidden


def _linear(node: Node) -> int:
    """scikit-learn's linear models: rows times coefficients."""
    rows = node.input(0)
    return 2 * (rows[0] if len(rows) > 1 else 1) * len(node.attributes.get("coefficients", ()))


CONTRACTIONS: Mapping[str, Callable[[Node], int]] = {
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": lambda node: _product(node, 0, 3),
    "Gemm": lambda node: _product(node, turned=("transA", "transB")),
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "DeformConv": _convolution,
    "QLinearConv": lambda node: _convolution(node, 3),
    "ConvTranspose": _transposed_convolution,
    "Einsum": _einsum,
    "LSTM": _recurrence,
    "GRU": _recurrence,
    "RNN": _recurrence,
    "Attention": _attention,
    "ai.onnx.ml.LinearClassifier": _linear,
    "ai.onnx.ml.LinearRegressor": _linear,
    "com.microsoft.FusedMatMul": lambda node: _product(node, turned=("transA", "transB")),
    "com.microsoft.Attention": _fused_attention,
}
"""By operator: its operations. ONNX's own have no domain before them."""

# Multiplications and additions that no shape tells, or that a peak says nothing of.
_UNKNOWN = frozenset({"DFT", "STFT", "Det"})
LEFT_OUT: Mapping[str, frozenset[str]] = {
    "ai.onnx.ml": frozenset(
        "ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer "
        "Imputer LabelEncoder Normalizer OneHotEncoder Scaler ZipMap".split()
    ),
    "com.microsoft": frozenset(
        "BiasAdd BiasDropout BiasGelu BiasSoftmax DequantizeLinear DynamicQuantizeLinear "
        "EmbedLayerNormalization FastGelu Gelu Inverse QuantizeLinear QuickGelu "
        "SkipLayerNormalization SkipSimplifiedLayerNormalization".split()
    ),
}
"""By domain: what computes element by element, reduces or moves data."""


def _fused_product(node: Node) -> Shape:
    left, right = node.input(0), node.input(1)
    if node.number("transBatchA") or node.number("transBatchB") or min(len(left), len(right)) < 2:
        raise ShapesUnknownError
    batch = left[:-2] if len(left) >= len(right) else right[:-2]
    rows = left[-1] if node.number("transA") else left[-2]
    return (*batch, rows, right[-2] if node.number("transB") else right[-1])


_SAME = LEFT_OUT["com.microsoft"] - {"DynamicQuantizeLinear", "EmbedLayerNormalization"}
GIVES: Mapping[str, Callable[[Node], Shape]] = {
    **{f"com.microsoft.{each}": lambda node: node.input(0) for each in _SAME},
    "com.microsoft.Attention": lambda node: (*node.input(0)[:-1], node.input(1)[1] // 3),
    "com.microsoft.EmbedLayerNormalization": lambda node: (*node.input(0), node.input(2)[-1]),
    "com.microsoft.FusedMatMul": _fused_product,
}
"""The shape of the first output of operators that ONNX's inference does not know."""


def is_left_out(domain: str, operator: str) -> bool:
    """Whether it multiplies and adds nothing that is counted, in graphs within it neither."""
    if not domain:
        return operator not in _UNKNOWN
    return operator in LEFT_OUT.get(domain, ())
