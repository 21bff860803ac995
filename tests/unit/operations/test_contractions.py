"""What operators multiply and add, against formulas written out by hand."""

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.operations.contractions import (
    CONTRACTIONS,
    GIVES,
    Node,
    ShapesUnknownError,
    is_left_out,
)

Shape = tuple[int, ...]
HIDDEN = [0.0] * 8


def count(
    operator: str, inputs: Sequence[Shape | None], output: Shape | None = None, **attributes: Any
) -> int:
    return CONTRACTIONS[operator](Node(operator, inputs, [output], attributes))


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "attributes", "expected"),
    [
        ("MatMul", [(2, 3, 5), (5, 7)], (2, 3, 7), {}, 2 * 2 * 3 * 7 * 5),
        ("MatMul", [None, (5, 7)], (2, 3, 7), {}, 2 * 2 * 3 * 7 * 5),
        ("MatMul", [(3, 5), (5,)], (3,), {}, 2 * 3 * 5),
        ("MatMul", [None, (5,)], (3,), {}, 2 * 3 * 5),
        ("MatMul", [(5,), (5, 7)], (7,), {}, 2 * 7 * 5),
        ("MatMulInteger", [(3, 5), (5, 7)], (3, 7), {}, 2 * 3 * 7 * 5),
        ("QLinearMatMul", [(3, 5), (), (), (5, 7)], (3, 7), {}, 2 * 3 * 7 * 5),
        ("Gemm", [(3, 5), (5, 7), (7,)], (3, 7), {}, 2 * 3 * 7 * 5),
        ("Gemm", [(5, 3), (5, 7)], (3, 7), {"transA": 1}, 2 * 3 * 7 * 5),
        ("Gemm", [None, (7, 5)], (3, 7), {"transB": 1}, 2 * 3 * 7 * 5),
        ("Conv", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 4, 4), {}, 2 * 16 * 16 * 27),
        # Depthwise: one channel in for each out.
        ("Conv", [(1, 8, 8, 8), (8, 1, 3, 3)], (1, 8, 8, 8), {"group": 8}, 2 * 8 * 64 * 9),
        ("QLinearConv", [(1, 3, 8, 8), (), (), (4, 3, 1, 1)], (1, 4, 8, 8), {}, 2 * 4 * 64 * 3),
        ("ConvTranspose", [(1, 4, 5, 5), (4, 6, 2, 2)], (1, 6, 10, 10), {}, 2 * 100 * 24),
        ("LSTM", [(9, 2, 5), (1, 12, 5), (1, 12, 3)], None, {}, 2 * 9 * 2 * 12 * (5 + 3)),
        ("LSTM", [(2, 9, 5), (1, 12, 5), (1, 12, 3)], None, {"layout": 1}, 2 * 18 * 12 * 8),
        ("GRU", [(9, 2, 5), (2, 9, 5), (2, 9, 3)], None, {}, 2 * 9 * 2 * 2 * 9 * 8),
        ("Einsum", [(2, 3, 5), (2, 5, 7)], None, {"equation": "bij, bjk -> bik"}, 2 * 2 * 105),
        ("Einsum", [(3,), (5,)], None, {"equation": "i,j->ij"}, 0),
        ("Einsum", [(3, 3)], None, {"equation": "ii->i"}, 0),
        ("Attention", [(2, 4, 6, 8), (2, 2, 9, 8), (2, 2, 9, 5)], None, {}, 2 * 8 * 54 * 13),
        (
            "Attention",
            [(2, 6, 32), (2, 9, 16), (2, 9, 10)],
            None,
            {"q_num_heads": 4, "kv_num_heads": 2},
            2 * 8 * 54 * 13,
        ),
        ("ai.onnx.ml.LinearClassifier", [(3, 4)], None, {"coefficients": HIDDEN}, 2 * 3 * 8),
        ("com.microsoft.FusedMatMul", [(3, 5), (7, 5)], (3, 7), {"transB": 1}, 2 * 21 * 5),
        (
            "com.microsoft.Attention",
            [(1, 6, 8), (8, 24), (24,)],
            None,
            {"num_heads": 2},
            2 * 6 * 8 * 24 + 4 * 6 * 6 * 8,
        ),
    ],
)
def test_operations_of_an_operator(
    operator: str,
    inputs: Sequence[Shape | None],
    output: Shape | None,
    attributes: dict[str, Any],
    expected: int,
) -> None:
    assert count(operator, inputs, output, **attributes) == expected


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "attributes"),
    [
        ("MatMul", [(2, 3), (3, 4)], None, {}),
        ("MatMul", [None, None], (2, 4), {}),
        ("Conv", [(1, 3, 8, 8)], (1, 4, 8, 8), {}),
        ("Einsum", [(2,), (3,), (4,)], None, {"equation": "i,j,k->ijk"}),
        ("Einsum", [(2, 3), (3, 4)], None, {"equation": "...ij,jk->...ik"}),
        ("Einsum", [(2, 3), (3,)], None, {"equation": "ij,jk->ik"}),
        ("Attention", [(2, 6, 32), (2, 9, 16), (2, 9, 10)], None, {}),
        ("com.microsoft.Attention", [(1, 6, 8), (8, 24)], None, {"qkv_hidden_sizes": [8, 8, 8]}),
    ],
)
def test_shape_that_is_not_known_is_said(
    operator: str,
    inputs: Sequence[Shape | None],
    output: Shape | None,
    attributes: dict[str, Any],
) -> None:
    with pytest.raises(ShapesUnknownError):
        count(operator, inputs, output, **attributes)


@pytest.mark.parametrize(
    ("domain", "operator", "expected"),
    [
        ("", "Relu", True),
        ("", "LayerNormalization", True),
        ("", "STFT", False),
        ("ai.onnx.ml", "Scaler", True),
        ("ai.onnx.ml", "TreeEnsembleClassifier", False),
        ("com.microsoft", "FastGelu", True),
        ("com.microsoft", "MoE", False),
        ("my.own", "Relu", False),
    ],
)
def test_what_is_left_out_is_a_list(domain: str, operator: str, expected: bool) -> None:
    assert is_left_out(domain, operator) is expected


def test_shapes_of_operators_that_onnx_does_not_know() -> None:
    def gives(operator: str, *inputs: Shape, **attributes: int) -> Shape:
        return GIVES[f"com.microsoft.{operator}"](Node(operator, inputs, [], attributes))

    assert gives("FastGelu", (1, 6, 8)) == (1, 6, 8)
    assert gives("Attention", (1, 6, 8), (8, 24)) == (1, 6, 8)
    assert gives("EmbedLayerNormalization", (1, 6), (1, 6), (100, 8)) == (1, 6, 8)
    assert gives("FusedMatMul", (2, 5, 3), (2, 7, 5), transA=1, transB=1) == (2, 3, 7)
    with pytest.raises(ShapesUnknownError):
        gives("FusedMatMul", (2, 3), (3, 4), transBatchA=1)
