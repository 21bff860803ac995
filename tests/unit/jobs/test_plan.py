"""Columns to tensors: what is accepted, and how every problem is told at once."""

from typing import Any

import pyarrow as pa
import pytest
from tests.support.fake_batch import info

from penstock.jobs.failures import PlanError
from penstock.jobs.model import WireTensor
from penstock.jobs.plan import Column, PlanOptions, make_plan, output_type


def plan_of(datatype: str, shape: tuple[int, ...], kind: Any, **options: Any) -> Any:
    model = info(inputs=[WireTensor("X", datatype, (-1, *shape))])
    return make_plan(model, [Column("X", kind)], PlanOptions(**options))


@pytest.mark.parametrize(
    ("datatype", "shape", "kind"),
    [
        ("FP32", (4,), pa.list_(pa.float32())),
        ("FP32", (4,), pa.list_(pa.float32(), 4)),
        ("FP32", (4,), pa.large_list(pa.float16())),
        ("FP32", (2, 2), pa.list_(pa.list_(pa.float32()))),
        ("FP32", (2, 2), pa.list_(pa.float32(), 4)),
        ("FP32", (-1,), pa.list_(pa.int16())),
        ("FP32", (1,), pa.float32()),
        ("FP32", (1,), pa.list_(pa.float32())),
        ("FP64", (), pa.float32()),
        ("INT32", (1,), pa.int64()),
        ("UINT8", (1,), pa.dictionary(pa.int32(), pa.int32())),
        ("BOOL", (1,), pa.bool_()),
        ("BYTES", (1,), pa.string()),
        ("BYTES", (2,), pa.list_(pa.binary())),
        ("BYTES", (1,), pa.dictionary(pa.int32(), pa.large_string())),
    ],
)
def test_column_that_fits_is_bound(datatype: str, shape: tuple[int, ...], kind: Any) -> None:
    (binding,) = plan_of(datatype, shape, kind).bindings
    assert (binding.tensor.name, binding.columns) == ("X", ("X",))


@pytest.mark.parametrize(
    ("datatype", "shape", "kind", "fragment"),
    [
        ("INT32", (1,), pa.float32(), "expected INT32, got float: a fraction would be cut off"),
        ("FP32", (1,), pa.float64(), "got double: values would be rounded: say --round"),
        ("FP32", (1,), pa.string(), "numbers are expected"),
        ("FP32", (4,), pa.list_(pa.float32(), 3), "expected FP32 [4], got"),
        ("FP32", (4,), pa.list_(pa.float32(), 3), "lists of 3, expected 4"),
        ("FP32", (4,), pa.float32(), "values within 0 lists, expected 1"),
        ("FP32", (2, -1), pa.list_(pa.float32()), "values within 1 list, expected 2"),
        ("INT64", (1,), pa.timestamp("us", tz="UTC"), "got timestamp[us, tz=UTC]"),
        ("BYTES", (1,), pa.int64(), "strings or binary are expected"),
        ("BOOL", (1,), pa.int8(), "booleans are expected"),
        ("FP32", (1,), pa.null(), "the column holds nothing but nulls"),
        ("FP32", (1,), pa.decimal128(9, 2), "numbers are expected"),
        ("BF16", (1,), pa.float32(), "say --round"),
    ],
)
def test_column_that_does_not_fit_is_told_with_model_tensor_and_column(
    datatype: str, shape: tuple[int, ...], kind: Any, fragment: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(datatype, shape, kind)
    (line,) = caught.value.lines
    assert line.startswith("model 'm': input 'X', column 'X': expected")
    assert fragment in line


def test_wider_floats_are_taken_with_round() -> None:
    assert plan_of("FP32", (1,), pa.float64(), may_round=True).bindings


def test_every_problem_is_told_at_once() -> None:
    model = info(inputs=[WireTensor(n, "FP32", (-1, 1)) for n in ("a", "größe", "c")])
    columns = [Column("a", pa.string()), Column("größe", pa.float64()), Column("Y", pa.int8())]
    options = PlanOptions(maps={"z": ("a",)}, keep=("nowhere", "Y"))
    with pytest.raises(PlanError) as caught:
        make_plan(model, columns, options)
    told = caught.value.lines
    assert told == (
        "model 'm' has no input 'z' to map columns to, only 'a', 'c', 'größe'",
        "the input has no column 'nowhere' to carry, only 'a', 'größe', 'Y'",
        "column 'Y' cannot be carried: an output of model 'm' has its name",
        "model 'm': input 'a', column 'a': expected FP32, got string: numbers are expected",
        "model 'm': input 'größe', column 'größe': expected FP32, got double: values would be "
        "rounded: say --round",
        "model 'm', input 'c': no column 'c', expected FP32, got columns 'a', 'größe', 'Y'",
    )


def test_columns_are_mapped_by_name_and_pattern() -> None:
    model = info(inputs=[WireTensor("X", "FP32", (-1, 4))])
    columns = [Column(name, pa.float32()) for name in ("p0", "q", "p1", "p2")]
    plan = make_plan(model, columns, PlanOptions(maps={"X": ("p*", "q")}))
    assert plan.bindings[0].columns == ("p0", "p1", "p2", "q")
    with pytest.raises(PlanError, match=r"3 columns .* make a row of shape \[3\], expected FP32"):
        make_plan(model, columns, PlanOptions(maps={"X": ("p*",)}))


def test_optional_input_may_be_missing() -> None:
    model = info(inputs=[WireTensor("X", "FP32", (-1, 4)), WireTensor("O", "FP32", (-1, 1), True)])
    columns = [Column("X", pa.list_(pa.float32())), Column("extra", pa.string(), 3)]
    plan = make_plan(model, columns, PlanOptions())
    assert [each.tensor.name for each in plan.bindings] == ["X"]
    assert plan.notes == ("not used: 'extra'",)


def test_known_nulls_are_told() -> None:
    plan = make_plan(info(), [Column("X", pa.list_(pa.float32()), 7)], PlanOptions())
    assert plan.notes == ("column 'X' holds 7 nulls: their rows will be rejected",)


def test_carried_columns_come_first_and_the_key_before_them() -> None:
    columns = [
        Column("X", pa.list_(pa.float32())),
        Column("a", pa.string()),
        Column("k", pa.int8()),
    ]
    plan = make_plan(info(), columns, PlanOptions(key="k", keep=("a", "k")))
    assert plan.schema.names == ["k", "a", "Y"]


def test_output_columns_are_lists_by_shape() -> None:
    tensors = info(
        outputs=[
            WireTensor("a", "INT64", (-1, 1)),
            WireTensor("b", "FP32", (-1, 2, 3)),
            WireTensor("c", "BYTES", (-1, -1)),
        ]
    ).outputs
    kinds = [output_type(tensor) for tensor in tensors]
    fixed = pa.list_(pa.list_(pa.float32(), 3), 2)
    assert kinds == [pa.int64(), fixed, pa.list_(pa.binary())]
