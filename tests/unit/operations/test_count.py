"""A model's operations from its graph: known networks, and what cannot be counted."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.operations.contractions import CONTRACTIONS
from penstock.operations.count import UncountableError, count_operations, read_model

FLOAT = TensorProto.FLOAT


def weight(name: str, *dims: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(dims, np.float32), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[Any]],
    weights: Sequence[onnx.TensorProto] = (),
    output: str = "y",
    **details: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, FLOAT, list(dims)) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        list(weights),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    opsets += [helper.make_opsetid("my.own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **details)


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"the {operator}", **attributes)


def refusal(made: onnx.ModelProto, **inputs: Sequence[int]) -> str:
    with pytest.raises(UncountableError) as raised:
        count_operations(made, inputs)
    return str(raised.value)


def test_residual_block_follows_the_batch() -> None:
    nodes = [
        node("Conv", ["x", "w"], "a", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], "b"),
        node("Add", ["b", "x"], "y"),
    ]
    made = model(nodes, {"x": ["n", 8, 16, 16]}, [weight("w", 8, 8, 3, 3)])
    found = count_operations(made, {"x": (1, 8, 16, 16)})
    one = 2 * (8 * 16 * 16) * (8 * 9)
    assert found == one
    made = model(nodes, {"x": ["n", 8, 16, 16]}, [weight("w", 8, 8, 3, 3)])
    assert count_operations(made, {"x": (5, 8, 16, 16)}) == 5 * one


def test_shapes_of_an_earlier_batch_in_the_file_are_not_believed() -> None:
    made = model([node("MatMul", ["x", "w"], "y")], {"x": ["n", 8]}, [weight("w", 8, 4)])
    made.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, [32, 4]))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, [32, 4]))
    assert count_operations(made, {"x": (1, 8)}) == 2 * 8 * 4


def test_shape_that_the_graph_computes_is_followed() -> None:
    nodes = [
        node("Shape", ["x"], "dims"),
        node("Gather", ["dims", "first"], "rows"),
        node("Concat", ["rows", "rest"], "shape", axis=0),
        node("Reshape", ["x", "shape"], "flat"),
        node("MatMul", ["flat", "w"], "y"),
    ]
    first = numpy_helper.from_array(np.array([0]), "first")
    rest = numpy_helper.from_array(np.array([-1]), "rest")
    weights = [first, rest, weight("w", 24, 2)]
    made = model(nodes, {"x": ["n", 2, 3, 4]}, weights)
    assert count_operations(made, {"x": (1, 2, 3, 4)}) == 2 * 24 * 2


def test_large_and_external_weights_count_by_their_shapes() -> None:
    large = weight("w", 64, 64)
    elsewhere = onnx.TensorProto(name="v", data_type=FLOAT, dims=[64, 3])
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    nodes = [node("MatMul", ["x", "w"], "a"), node("MatMul", ["a", "v"], "y")]
    made = model(nodes, {"x": ["n", 64]}, [large, elsewhere])
    assert count_operations(made, {"x": (1, 64)}) == 2 * 64 * 64 + 2 * 64 * 3


def test_functions_of_the_model_are_counted_within() -> None:
    opsets = [helper.make_opsetid("", 17)]
    twice = helper.make_function(
        "my.own",
        "Twice",
        ["a", "w"],
        ["b"],
        [
            helper.make_node("MatMul", ["a", "w"], ["c"]),
            helper.make_node("MatMul", ["c", "w"], ["b"]),
        ],
        opsets,
    )
    call = node("Twice", ["x", "w"], "y", domain="my.own")
    made = model([call], {"x": ["n", 8]}, [weight("w", 8, 8)], functions=[twice])
    assert count_operations(made, {"x": (1, 8)}) == 2 * (2 * 8 * 8)


def test_operators_of_onnx_runtimes_own_pass_shapes_on() -> None:
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("BiasGelu", ["a", "b"], "c", domain="com.microsoft"),
        node("FastGelu", ["c"], "d", domain="com.microsoft"),
        node("MatMul", ["d", "w"], "y"),
    ]
    made = model(nodes, {"x": ["n", 8]}, [weight("w", 8, 8), weight("b", 8)])
    assert count_operations(made, {"x": (1, 8)}) == 2 * (2 * 8 * 8)


def test_names_of_a_graph_are_shortened_and_made_printable() -> None:
    name = "a\nb\x1b[2J" + "c" * 9999
    strange = helper.make_node("Mystery\n" + "d" * 9999, ["x"], [name], domain="my.own")
    for asked in ({}, {name: (1, 8)}, {"x": (1,) * 9999}):
        made = model([strange], {"x": ["n", 8]}, output=name)
        text = refusal(made, **asked)
        assert text.isprintable()
        assert len(text) < 300


def test_open_dimension_is_not_guessed() -> None:
    made = model([node("MatMul", ["x", "w"], "y")], {"x": ["n", "t", 8]}, [weight("w", 8, 4)])
    assert refusal(made, x=(1, -1, 8)) == "node 'the MatMul' (MatMul) has shapes that are not known"


@pytest.mark.parametrize("asked", [{}, {"x": (1, -1, 768)}, {"x": (-1, -1, 768)}])
def test_negative_dimension_is_an_open_one(asked: dict[str, Sequence[int]]) -> None:
    """Whether or not the configuration names the input."""
    nodes = [node("MatMul", ["x", "w"], "y")]
    made = model(nodes, {"x": [-1, -1, 768]}, [weight("w", 768, 768)])
    expected = "node 'the MatMul' (MatMul) has shapes that are not known"
    assert refusal(made, **asked) == expected
    made = model(nodes, {"x": [-1, -1, 768]}, [weight("w", 768, 768)])
    assert count_operations(made, {"x": (1, 3, 768)}) == 3 * 2 * 768 * 768


def test_negative_dimensions_of_a_weight_are_no_numbers() -> None:
    strange = onnx.TensorProto(name="w", data_type=FLOAT, dims=[8, -4])
    strange.data_location = onnx.TensorProto.EXTERNAL
    made = model([node("MatMul", ["x", "w"], "y")], {"x": ["n", 8]}, [strange])
    assert "shapes that are not known" in refusal(made, x=(1, 8))


def test_negative_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, Any]", CONTRACTIONS), "MatMul", lambda _: -1)
    made = model([node("MatMul", ["x", "w"], "y")], {"x": ["n", 8]}, [weight("w", 8, 4)])
    assert refusal(made, x=(1, 8)) == "node 'the MatMul' (MatMul) has shapes that it cannot have"


def test_open_dimension_that_nothing_depends_on_does_not_matter() -> None:
    nodes = [node("Identity", ["ids"], "z"), node("MatMul", ["x", "w"], "y")]
    made = model(nodes, {"x": ["n", 8], "ids": ["n", "t"]}, [weight("w", 8, 4)])
    assert count_operations(made, {"x": (1, 8), "ids": (1, -1)}) == 2 * 8 * 4


@pytest.mark.parametrize("operator", ["Mystery", "MatMul", "Conv"])
def test_unknown_operator_is_named(operator: str) -> None:
    """Whatever it is called: it is its domain's."""
    made = model([node(operator, ["x"], "y", domain="my.own")], {"x": ["n", 8]})
    expected = f"node 'the {operator}' (my.own.{operator}) is an operator whose work is not known"
    assert refusal(made, x=(1, 8)) == expected


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    output = nodes[-1].output[0]
    return helper.make_graph(
        list(nodes), output, [], [helper.make_tensor_value_info(output, FLOAT, None)]
    )


def test_branches_count_only_where_there_is_nothing_in_them() -> None:
    quiet = {"then_branch": branch(node("Relu", ["x"], "p"))}
    quiet["else_branch"] = branch(node("Identity", ["x"], "q"))
    loud = {**quiet, "else_branch": branch(node("MatMul", ["x", "w"], "q"))}
    condition = numpy_helper.from_array(np.array(True), "c")
    weights = [condition, weight("w", 8, 8)]
    made = model([node("If", ["c"], "y", **quiet)], {"x": ["n", 8]}, weights)
    assert count_operations(made, {"x": (1, 8)}) == 0
    made = model([node("If", ["c"], "y", **loud)], {"x": ["n", 8]}, weights)
    assert "node 'the If' (If) is an operator whose work is not known" in refusal(made, x=(1, 8))


@pytest.mark.parametrize(
    ("inputs", "fragment"),
    [
        ({"z": (1, 8)}, "the graph has no input 'z'"),
        ({"x": (1, 8, 8)}, "input 'x' has 2 dimensions, got [1, 8, 8]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: dict[str, Sequence[int]], fragment: str) -> None:
    made = model([node("Relu", ["x"], "y")], {"x": ["n", 8]})
    assert fragment in refusal(made, **inputs)


def test_graph_that_contradicts_itself_is_refused() -> None:
    nodes = [node("MatMul", ["x", "w"], "y")]
    made = model(nodes, {"x": ["n", 8]}, [weight("w", 5, 4)])
    assert "has shapes that are not known" in refusal(made, x=(1, 8))


def test_graph_that_cannot_be_inferred_is_refused() -> None:
    made = model([node("Relu", ["x"], "y")], {"x": ["n", 8]})
    del made.opset_import[:]
    assert "its shapes cannot be inferred: " in refusal(made, x=(1, 8))


def test_more_operations_than_there_can_be_are_refused() -> None:
    huge = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2**40, 2**40])
    huge.data_location = onnx.TensorProto.EXTERNAL
    made = model([node("MatMul", ["x", "w"], "y")], {"x": ["n", 2**40]}, [huge])
    assert "more than 1e+18 operations" in refusal(made, x=(1, 2**40))


def test_names_of_a_hostile_file_are_short_and_printable() -> None:
    made = model([node("Evil", ["x"], "y", domain="my.own")], {"x": ["n", 8]})
    made.graph.node[0].name = "a\n\x1b" + "b" * 10_000
    assert refusal(made, x=(1, 8)).startswith("node 'a??bbbb")
    assert len(refusal(made, x=(1, 8))) < 200


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x0a\xff\xff\xff\xff\x0f"])
def test_file_that_is_no_model_is_refused(tmp_path: Any, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    def count() -> int:
        return count_operations(read_model(str(path)), {"x": (1, 8)})

    with pytest.raises(UncountableError):
        count()


@pytest.fixture(scope="module")
def networks() -> Any:
    """bench/mlperf's, which are what their papers say but for the weights."""
    from mlperf import networks as found

    return found


def test_resnet50_is_what_is_published(networks: Any) -> None:
    made = onnx.load_from_string(networks.resnet50())
    found = count_operations(made, {made.graph.input[0].name: (1, 3, 224, 224)})
    # 4,089,184,256 multiply-accumulates of v1.5: 4.1 GMAC, 8.2 GFLOP.
    assert found == 2 * 4_089_184_256


def bert_operations(layers: int, tokens: int) -> int:
    layer = 4 * 768 * 768 * tokens + 2 * 768 * 3072 * tokens + 2 * tokens * tokens * 768
    return 2 * (layers * layer + 768 * 768)  # and the pooler


@pytest.mark.parametrize("tokens", [16, 384])
def test_encoder_is_its_formula(networks: Any, tokens: int) -> None:
    shape = networks.BertShape(layers=2, vocabulary=1000)
    made = onnx.load_from_string(networks.bert(shape=shape))
    found = count_operations(made, {"input_ids": (1, tokens)})
    assert found == bert_operations(2, tokens)
    made = onnx.load_from_string(networks.bert(shape=shape))
    assert count_operations(made, {"input_ids": (4, tokens)}) == 4 * found


@pytest.mark.slow  # it has 110 million weights
def test_bert_base_is_its_formula(networks: Any) -> None:
    made = onnx.load_from_string(networks.bert())
    found = count_operations(made, {"input_ids": (1, 384)})
    assert found == bert_operations(12, 384) == 70_666_813_440
