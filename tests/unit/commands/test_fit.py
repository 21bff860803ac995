"""Datatype and shape of loaded values against an input."""

from typing import Any

import numpy as np
import pytest

from penstock.commands._failure import CommandError
from penstock.commands._files import Loaded
from penstock.commands._fit import fit
from penstock.commands._interface import InputInterface


def target(datatype: str = "FP32", row: tuple[int, ...] = (3,), batch: bool = True) -> Any:
    return InputInterface("X", datatype, row, batch)


def loaded(value: object, dtype: Any = None, *, text: bool = False, row: bool = False) -> Loaded:
    return Loaded(np.array(value, dtype=dtype), "a.npy", is_text=text, is_row=row)


@pytest.mark.parametrize(
    ("shape", "row", "fitted"),
    [
        ((2, 3), (3,), (2, 3)),
        ((3,), (3,), (1, 3)),
        ((5, 2, 2), (2, -1), (5, 2, 2)),
        ((2, 2), (2, -1), (1, 2, 2)),
        ((4,), (), (4,)),
        ((4,), (1,), (4, 1)),
        ((0, 3), (3,), (0, 3)),
    ],
)
def test_rows_get_their_batch_dimension(
    shape: tuple[int, ...], row: tuple[int, ...], fitted: tuple[int, ...]
) -> None:
    assert fit(loaded(np.zeros(shape, np.float32)), target(row=row), "m").shape == fitted


def test_cells_of_text_take_the_shape_of_a_row() -> None:
    cells = loaded(np.arange(8).reshape(2, 4), text=True)
    assert fit(cells, target(row=(2, 2)), "m").tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_model_without_batches_takes_its_shape_only() -> None:
    unbatched = target(row=(2, 3), batch=False)
    assert fit(loaded(np.zeros((2, 3), np.float32)), unbatched, "m").shape == (2, 3)
    with pytest.raises(CommandError, match="takes FP32 shape"):
        fit(loaded(np.zeros(3, np.float32)), unbatched, "m")


def test_row_gets_the_models_own_batch_dimension() -> None:
    own = target(row=(-1, 3), batch=False)
    assert fit(loaded([1, 2, 3], text=True, row=True), own, "m").shape == (1, 3)


def test_wrong_shape_names_both() -> None:
    with pytest.raises(CommandError) as caught:
        fit(loaded(np.zeros((2, 4), np.float32)), target(), "m")
    assert str(caught.value) == (
        "input 'X' of model 'm' takes FP32 rows of shape [3], a.npy has shape [2, 4]"
    )


@pytest.mark.parametrize(
    ("value", "dtype", "datatype"),
    [
        ([1.5, 2, 3], np.float64, "FP32"),
        ([np.nan, np.inf, -np.inf], np.float64, "FP16"),
        ([1, 2, 3], np.int64, "FP32"),
        ([1.0, 2.0, 3.0], np.float32, "INT8"),
        ([1, 0, 1], np.int64, "BOOL"),
        ([True, False, True], np.bool_, "INT32"),
        ([1, 2, 255], np.int64, "UINT8"),
        ([1.5, 2, 3], np.float64, "BF16"),
    ],
)
def test_same_values_change_their_type(value: object, dtype: Any, datatype: str) -> None:
    fitted = fit(loaded(value, dtype), target(datatype), "m")
    assert np.array_equal(fitted[0].astype(float), np.array(value, float), equal_nan=True)


@pytest.mark.parametrize(
    ("value", "dtype", "datatype"),
    [
        ([0.1, 2, 3], np.float64, "FP32"),
        ([1.5, 2, 3], np.float32, "INT32"),
        ([1, 2, 256], np.int64, "UINT8"),
        ([1, 2, -1], np.int64, "UINT64"),
        ([2**53 + 1, 2, 3], np.int64, "FP64"),
        ([1, 2, 2], np.int64, "BOOL"),
        ([np.nan, 2, 2], np.float32, "INT32"),
        ([0.1, 2, 3], np.float32, "BF16"),
    ],
)
def test_other_values_are_refused(value: object, dtype: Any, datatype: str) -> None:
    with pytest.raises(CommandError, match="cannot hold .* of a.npy exactly"):
        fit(loaded(value, dtype), target(datatype), "m")


def test_array_is_rounded_when_allowed() -> None:
    array = loaded([0.1, 2, 3], np.float64)
    with pytest.raises(CommandError, match="--round allows it"):
        fit(array, target(), "m")
    assert fit(array, target(), "m", may_round=True)[0, 0] == np.float32(0.1)


def test_text_is_rounded_to_floating_point_but_not_to_integers() -> None:
    text = loaded([0.1, 2, 3], text=True)
    assert fit(text, target("FP16"), "m").dtype == np.float16
    with pytest.raises(CommandError, match=r"cannot hold 0\.1 of a\.npy exactly$"):
        fit(text, target("INT64"), "m", may_round=True)


def test_text_beyond_the_type_is_refused() -> None:
    with pytest.raises(CommandError, match=r"cannot hold 70000\.0"):
        fit(loaded([70000.0, 2, 3], text=True), target("FP16"), "m", may_round=True)


def test_strings_go_to_bytes_only() -> None:
    words = loaded(["a", "b", "c"], text=True)
    assert fit(words, target("BYTES"), "m").tolist() == [["a", "b", "c"]]
    with pytest.raises(CommandError, match=r"takes FP32, a\.npy holds strings"):
        fit(words, target("FP32"), "m")
    with pytest.raises(CommandError, match="holds float32, expected strings"):
        fit(loaded([1, 2, 3], np.float32), target("BYTES"), "m")
