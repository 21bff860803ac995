"""Rows to tensors: values as they are, and rows that do not fit told by number and reason."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.support.fake_batch import info

from penstock.jobs.convert import convert
from penstock.jobs.model import WireTensor
from penstock.jobs.plan import Column, PlanOptions, make_plan


def converted(
    column: Any, datatype: str, shape: Sequence[int], **options: Any
) -> tuple[list[Any], list[tuple[int, str]]]:
    """Runs and rejects of a column X for an input X."""
    model = info(inputs=[WireTensor("X", datatype, (-1, *shape))])
    plan = make_plan(model, [Column("X", column.type)], PlanOptions(**options))
    runs, rejects = convert(pa.record_batch([column], ["X"]), plan)
    return runs, [(reject.row, reject.reason) for reject in rejects]


def test_plain_list_column_is_not_copied() -> None:
    values = pa.array(np.arange(8, dtype=np.float32))
    column = pa.FixedSizeListArray.from_arrays(values, 4)
    (run,), rejects = converted(column, "FP32", [4])
    assert rejects == []
    assert run.inputs[0].values.shape == (2, 4)
    assert run.inputs[0].values.ctypes.data == values.buffers()[1].address


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3)])
def test_slices_of_a_column_keep_their_own_rows(kind: Any) -> None:
    column = pa.array([[0, 0, 0], [1, 2, 3], [4, 5, 6]], kind)
    (run,), _ = converted(column.slice(1), "FP32", [3])
    assert run.inputs[0].values.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_nan_and_infinity_pass() -> None:
    column = pa.array([1.0, float("nan"), float("inf")], pa.float32())
    (run,), rejects = converted(column, "FP32", [1])
    assert rejects == []
    assert np.isnan(run.inputs[0].values[1, 0])


def test_nulls_and_wrong_lengths_are_rejected_by_row() -> None:
    column = pa.array([[1, 2], None, [3], [4, None], [5, 6]], pa.list_(pa.float32()))
    (run,), rejects = converted(column, "FP32", [2])
    assert run.rows.tolist() == [0, 4]
    assert run.inputs[0].values.tolist() == [[1, 2], [5, 6]]
    where = "column 'X' for input 'X' of model 'm': "
    assert rejects == [
        (1, where + "it is null"),
        (2, where + "a list of 1, expected 2"),
        (3, where + "a null in the list"),
    ]


def test_integers_out_of_range_are_rejected_never_wrapped() -> None:
    column = pa.array([1, 2**31, -(2**31) - 1, -(2**31), 2**31 - 1], pa.int64())
    (run,), rejects = converted(column, "INT32", [1])
    assert run.inputs[0].values.ravel().tolist() == [1, -(2**31), 2**31 - 1]
    assert run.inputs[0].values.dtype == np.int32
    assert [row for row, _ in rejects] == [1, 2]
    assert rejects[0][1].endswith("2147483648 is out of the range of INT32")


def test_negative_integers_do_not_become_unsigned() -> None:
    (run,), rejects = converted(pa.array([-1, 5], pa.int8()), "UINT64", [1])
    assert (run.rows.tolist(), [row for row, _ in rejects]) == ([1], [0])


def test_integers_that_a_float_cannot_hold_are_rejected() -> None:
    column = pa.array([1 << 24, (1 << 24) + 1], pa.int64())
    (run,), rejects = converted(column, "FP32", [1])
    assert run.inputs[0].values.ravel().tolist() == [1 << 24]
    assert rejects[0][1].endswith("16777217 is not exact in FP32")


def test_floats_over_the_range_are_rejected_when_rounding() -> None:
    (run,), rejects = converted(pa.array([1e300, 1.5]), "FP32", [1], may_round=True)
    assert (run.rows.tolist(), rejects[0][0]) == ([1], 0)


@pytest.mark.parametrize(
    ("datatype", "good", "bad"),
    [
        ("FP32", " 1.5e1", "x1"),
        ("INT32", "-7", "1.5"),
        ("BOOL", "True", "yes"),
        ("FP64", "nan", ""),
    ],
)
def test_text_becomes_numbers_or_is_rejected(datatype: str, good: str, bad: str) -> None:
    (run,), rejects = converted(pa.array([good, bad]), datatype, [1], is_text=True)
    assert run.rows.tolist() == [0]
    assert (rejects[0][0], repr(bad) in rejects[0][1]) == (1, True)


def test_text_beyond_the_widest_integer_is_rejected() -> None:
    column = pa.array(["9" * 30, "3"])
    (run,), rejects = converted(column, "INT64", [1], is_text=True)
    assert (run.inputs[0].values.ravel().tolist(), rejects[0][0]) == ([3], 0)


def test_free_dimension_makes_runs_of_equal_length() -> None:
    column = pa.array([[1], [2], [3, 4], [], [5]], pa.list_(pa.float32()))
    runs, rejects = converted(column, "FP32", [-1])
    assert rejects == []
    assert [run.rows.tolist() for run in runs] == [[0, 1], [2], [3], [4]]
    assert [run.inputs[0].values.shape for run in runs] == [(2, 1), (1, 2), (1, 0), (1, 1)]


def test_flat_lists_become_rows_of_several_dimensions() -> None:
    column = pa.array([[1, 2, 3, 4]], pa.list_(pa.float32()))
    (run,), _ = converted(column, "FP32", [2, 2])
    assert run.inputs[0].values.tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("values", [["grüße", "", "x" * 70000], ["a"]])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view()])
def test_strings_travel_as_lengths_and_bytes(kind: Any, values: list[str]) -> None:
    (run,), _ = converted(pa.array(values).cast(kind), "BYTES", [1])
    rows = run.inputs[0]
    encoded = [value.encode() for value in values]
    wire = b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
    assert bytes(rows.raw()) == wire
    assert rows.array().tolist() == [[each] for each in encoded]
    assert bytes(rows.slice(len(values) - 1, len(values)).raw()) == wire[-4 - len(encoded[-1]) :]


def test_dictionaries_are_decoded() -> None:
    column = pa.array(["b", "a", "b"]).dictionary_encode()
    (run,), _ = converted(column, "BYTES", [1])
    assert run.inputs[0].array().ravel().tolist() == [b"b", b"a", b"b"]


def test_several_columns_become_one_row() -> None:
    model = info(inputs=[WireTensor("X", "FP32", (-1, 2))])
    columns = [Column("a", pa.float32()), Column("b", pa.int8())]
    plan = make_plan(model, columns, PlanOptions(maps={"X": ("b", "a")}))
    values = [pa.array([1.5, None], pa.float32()), pa.array([2, 3], pa.int8())]
    batch = pa.record_batch(values, ["a", "b"])
    (run,), rejects = convert(batch, plan)
    assert run.inputs[0].values.tolist() == [[2, 1.5]]
    assert [(each.row, "column 'a'" in each.reason) for each in rejects] == [(1, True)]


def test_bfloat16_is_rounded_to_even() -> None:
    (run,), _ = converted(pa.array([1.0, 1.00390625], pa.float32()), "BF16", [1], may_round=True)
    assert bytes(run.inputs[0].raw()) == b"\x80\x3f\x80\x3f"


def test_bad_rows_of_all_runs_and_columns_are_found_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a block with many of them would be converted as often as there are."""
    from penstock.jobs import convert as module

    tries = 0
    runs_of = module._runs

    def counted(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        return runs_of(*arguments)

    monkeypatch.setattr(module, "_runs", counted)
    lists = [[0] * (1 + row % 3) if row % 2 else [1 << 40] * (1 + row % 3) for row in range(60)]
    _, rejects = converted(pa.array(lists, pa.list_(pa.int64())), "INT32", [-1])
    assert [row for row, _ in rejects] == list(range(0, 60, 2))
    assert tries == 2

    names = [f"c{at}" for at in range(20)]
    columns = [pa.array([None if row == at else 1 for row in range(21)]) for at in range(20)]
    described = [Column(name, pa.int64()) for name in names]
    maps = {"X": tuple(names)}
    plan = make_plan(info([WireTensor("X", "INT32", (-1, 20))]), described, PlanOptions(maps))
    (run,), found = convert(pa.record_batch(columns, names), plan)
    assert (run.rows.tolist(), len(found), tries) == ([20], 20, 4)
    assert "column 'c7'" in found[7].reason
