"""Files that hold rows: .npy, .npz, .json, .csv and images, read into arrays.

A file gives one array without a name, or arrays by input name (`Contents`). Numbers from text have
no datatype of their own, so they are marked `is_text`: rounding them to the model's datatype is
reading them, not losing anything.

    .npy   one array                             .npz   arrays by name
    .json  {"inputs": [{"name", "shape", "datatype", "data"}]} (Open Inference),
           {"name": nested list}, or one nested list
    .csv   a line is a row; a first line of input names makes each column an input of its own,
           any other first line that holds no number is skipped as a header
"""

from __future__ import annotations

import csv
import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.commands._failure import CommandError, os_reason
from penstock.commands._interface import InputInterface, ModelInterface

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SUFFIXES = (".npy", ".npz", ".json", ".csv", *IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """Values of one input.

    Attributes:
        array: the values.
        where: where they come from, for messages.
        is_text: they were written as text.
        is_row: it is one row, never a batch.
    """

    array: Array
    where: str
    is_text: bool = False
    is_row: bool = False


Contents = dict[str, Loaded] | Loaded

_UNREADABLE = (
    *(ValueError, EOFError, csv.Error, zipfile.BadZipFile),
    # What the readers let through of the parsers below them, given bytes that mean harm or nothing.
    *(RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, zlib.error),
)


def read_file(path: Path, model: ModelInterface) -> Contents:
    """Reads a file that is not an image.

    Args:
        path: the file; its suffix says the format.
        model: what the values are for.

    Raises:
        CommandError: it cannot be read as what its suffix says.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            return _read_csv(path, model)
        if suffix in _READERS:
            return _READERS[suffix](path)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from None
    except _UNREADABLE as error:
        raise CommandError(f"cannot read {path} as {suffix}: {error}") from None
    raise CommandError(
        f"cannot read {path}: unknown suffix '{path.suffix}', expected one of {', '.join(SUFFIXES)}"
    )


def _read_npy(path: Path) -> Loaded:
    import numpy as np

    with path.open("rb") as file:
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds an archive of arrays; name it .npz")
    return Loaded(array, str(path))


def _read_npz(path: Path) -> dict[str, Loaded]:
    import numpy as np

    with path.open("rb") as file:  # numpy would leave a broken file open
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it holds a single array; name it .npy")
        with archive:
            return {name: Loaded(archive[name], f"{path}:{name}") for name in archive.files}


def _read_json(path: Path) -> Contents:
    document = json.loads(path.read_bytes())
    if isinstance(document, list):
        return Loaded(_array_of(document, ""), str(path), is_text=True)
    if not isinstance(document, dict):
        raise ValueError("expected an object or a list")
    inputs = document.get("inputs")
    if isinstance(inputs, list) and all(isinstance(each, dict) for each in inputs) and inputs:
        return {_v2_name(each): _v2_input(each, path) for each in inputs}
    return {
        name: Loaded(_array_of(value, f"'{name}': "), f"{path}:{name}", is_text=True)
        for name, value in document.items()
    }


def _v2_name(item: dict[str, Any]) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise ValueError('an entry of "inputs" has no name')
    return name


def _v2_input(item: dict[str, Any], path: Path) -> Loaded:
    name = _v2_name(item)
    array = _array_of(item.get("data"), f"'{name}': data: ")
    shape = item.get("shape")
    if shape is not None:
        if not isinstance(shape, list) or not all(type(dim) is int and dim >= 0 for dim in shape):
            raise ValueError(f"'{name}': shape is no list of dimensions: {shape!r}")
        try:
            array = array.reshape(shape)
        except ValueError:
            raise ValueError(f"'{name}': {array.size} values do not make shape {shape}") from None
    return Loaded(array, f"{path}:{name}", is_text=True)


def _array_of(value: Any, what: str) -> Array:
    """Nested lists as an array: numbers, booleans or strings, never a mixture."""
    import numpy as np

    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{what}the lists are not of equal length") from None
    if array.size == 0:
        return array
    kinds = {_kind(leaf) for leaf in np.array(value, dtype=object).ravel()}
    if len(kinds) > 1 or kinds == {"other"}:
        raise ValueError(f"{what}expected numbers, booleans or strings, and only one of these")
    return array


def _kind(leaf: object) -> str:
    if isinstance(leaf, bool):
        return "boolean"
    if isinstance(leaf, int | float):
        return "number"
    return "string" if isinstance(leaf, str) else "other"


def _read_csv(path: Path, model: ModelInterface) -> Contents:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise ValueError("it has no rows")
    uneven = next((n for n, line in enumerate(lines, 1) if len(line) != len(lines[0])), None)
    if uneven is not None:
        raise ValueError(
            f"row {uneven} has {len(lines[uneven - 1])} cells, the first has {len(lines[0])}"
        )
    first = [cell.strip() for cell in lines[0]]
    if all(model.input(cell) for cell in first):
        return _columns(path, first, lines[1:], model)
    sole = model.inputs[0] if len(model.inputs) == 1 else None
    is_header = not any(_is_number(cell) for cell in first)
    if is_header and (sole is None or sole.datatype != "BYTES"):
        lines = lines[1:]
    if not lines:
        raise ValueError("it has no rows below its header")
    return Loaded(_cells(lines, sole, 2 if is_header else 1), str(path), is_text=True)


def _columns(
    path: Path, names: list[str], lines: list[list[str]], model: ModelInterface
) -> dict[str, Loaded]:
    return {
        name: Loaded(
            _cells([[line[at]] for line in lines], model.input(name), 2),
            f"{path}:{name}",
            is_text=True,
        )
        for at, name in enumerate(names)
    }


def _cells(lines: list[list[str]], target: InputInterface | None, first_row: int) -> Array:
    """Cells as strings for a BYTES input, as numbers otherwise."""
    import numpy as np

    if target is not None and target.datatype == "BYTES":
        return np.array(lines, dtype=str)
    for row, line in enumerate(lines, first_row):
        wrong = next((cell for cell in line if not _is_number(cell)), None)
        if wrong is not None:
            raise ValueError(f"row {row}: '{wrong}' is not a number")
    try:
        return np.array([[int(cell) for cell in line] for line in lines])
    except (ValueError, OverflowError):
        return np.array([[float(cell) for cell in line] for line in lines])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[Path], Contents]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".json": _read_json,
}
