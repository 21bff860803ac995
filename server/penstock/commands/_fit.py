"""Makes loaded values fit an input: datatype and shape, or a clear refusal.

Datatypes: a value may change its type only if it stays the same value. Numbers read from text and
pixels are rounded to the input's floating-point type, which is how they are meant; arrays of .npy
and .npz are not, unless the user allows it.

Shapes: an input that batches takes an array of rows, or one row; single values make rows of an
input whose row is one value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.commands._failure import CommandError
from penstock.commands._files import Loaded
from penstock.commands._interface import InputInterface

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def fit(loaded: Loaded, target: InputInterface, model: str, *, may_round: bool = False) -> Any:
    """The values as the client should send them, batch dimension first where the input batches.

    Args:
        loaded: the values.
        target: the input they are for.
        model: the model's name, for messages.
        may_round: whether an array may be rounded to a smaller floating-point type.

    Returns:
        An array; for BF16 a float32 array that holds only bfloat16 values.

    Raises:
        CommandError: datatype or shape do not fit.
    """
    return _fit_type(_fit_shape(loaded, target, model), loaded, target, model, may_round)


def _fit_shape(loaded: Loaded, target: InputInterface, model: str) -> Array:
    array, row = loaded.array, target.row_shape
    if not target.has_batch:
        if _matches(array.shape, row):
            return array
        if loaded.is_row and row[:1] in ((1,), (-1,)) and _matches(array.shape, row[1:]):
            return array[None]
    elif _matches(array.shape[1:], row) and array.ndim and not loaded.is_row:
        return array
    elif _matches(array.shape, row):
        return array[None]
    elif array.ndim == 1 and row and all(dim in (1, -1) for dim in row) and not loaded.is_row:
        return array.reshape(-1, *([1] * len(row)))
    else:
        reshaped = _rows_of_cells(loaded, row)
        if reshaped is not None:
            return reshaped
    raise CommandError(
        f"input '{target.name}' of model '{model}' takes {target.describe()}, "
        f"{loaded.where} has shape {list(array.shape)}"
    )


def _rows_of_cells(loaded: Loaded, row: tuple[int, ...]) -> Array | None:
    """Flat rows of text, as a .csv has them, in the shape of a row of fixed size."""
    array = loaded.array
    if not loaded.is_text or array.ndim != 2 or any(dim < 0 for dim in row):
        return None
    size = 1
    for dim in row:
        size *= dim
    return array.reshape(len(array), *row) if array.shape[1] == size else None


def _matches(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, dim) for dim, want in zip(shape, wanted, strict=True)
    )


def _fit_type(
    array: Array, loaded: Loaded, target: InputInterface, model: str, may_round: bool
) -> Any:
    import numpy as np

    from penstock_client.tensors import NUMPY_TYPES

    what = f"input '{target.name}' of model '{model}' takes {target.datatype}"
    if target.datatype == "BYTES":
        if array.dtype.kind not in "OSUT":
            raise CommandError(f"{what}, {loaded.where} holds {array.dtype}, expected strings")
        return array
    if array.dtype.kind not in "biuf":
        raise CommandError(f"{what}, {loaded.where} holds {_type_name(array)}")
    if target.datatype == "BF16":
        cast = _as_bf16(array)
    elif target.datatype in NUMPY_TYPES:
        with np.errstate(all="ignore"):
            cast = array.astype(NUMPY_TYPES[target.datatype], copy=False)
    else:
        raise CommandError(f"{what}, a datatype this client does not know")
    _refuse_changed(array, cast, loaded, what, may_round)
    return cast


def _refuse_changed(array: Array, cast: Array, loaded: Loaded, what: str, may_round: bool) -> None:
    """Refuses a cast that made other values, save rounding where that is allowed."""
    import numpy as np

    if cast is array:
        return
    with np.errstate(all="ignore"):
        back = cast.astype(array.dtype)
        is_same = (cast == array) & (back == array)  # a wrapped integer comes back, too
        is_same |= (cast != cast) & (array != array)  # NaN stays NaN
    if bool(is_same.all()):
        return
    is_rounding = cast.dtype.kind == "f" and bool((np.isfinite(cast) | ~np.isfinite(array)).all())
    if is_rounding and (may_round or loaded.is_text):
        return
    value = array[~is_same].ravel()[0]
    advice = "; --round allows it" if is_rounding else ""
    raise CommandError(f"{what}, which cannot hold {value!s} of {loaded.where} exactly{advice}")


def _type_name(array: Array) -> str:
    return "strings" if array.dtype.kind in "OSUT" else str(array.dtype)


def _as_bf16(array: Array) -> Any:
    """Nearest bfloat16 values, as float32."""
    import numpy as np

    from penstock_client.tensors import round_to_bf16

    bits = round_to_bf16(np.ascontiguousarray(array, dtype=np.float32))
    return (bits.astype(np.uint32) << 16).view(np.float32)
