"""What commands print on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.console import Console

    Array = npt.NDArray[Any]

SHOWN_ROWS = 20
_SHOWN_VALUES = 10
_WIDTH_OF_A_PIPE = 160


def print_json(value: Any) -> None:
    """Prints indented JSON: named tuples, too, are objects.

    Numbers JSON has no word for become "NaN", "Infinity", "-Infinity".
    """
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Prints a table; cells are plain text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal, or wide enough when there is none."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(stderr=stderr, width=width, highlight=False)


def print_outputs(outputs: Mapping[str, Array], *, has_rows: bool) -> None:
    """Prints the outputs of an inference.

    Args:
        outputs: arrays by name.
        has_rows: whether the first dimension is the batch; if not, each output is one line.
    """
    if not has_rows or not _same_length(outputs):
        rows = [[name, str(array.shape), _values(array)] for name, array in outputs.items()]
        print_table(["output", "shape", "values"], rows)
        return
    count = len(next(iter(outputs.values())))
    shown = [
        [str(at), *(_values(array[at]) for array in outputs.values())]
        for at in range(min(count, SHOWN_ROWS))
    ]
    print_table(["row", *outputs], shown)
    if count > SHOWN_ROWS:
        typer.echo(f"... and {count - SHOWN_ROWS} more rows: --json or --output FILE.npz has all")


def outputs_document(
    outputs: Mapping[str, Array], datatypes: Mapping[str, str], model: str, version: str
) -> dict[str, Any]:
    """Outputs as an Open Inference response, data nested by shape."""
    return {
        "model_name": model,
        "model_version": version,
        "outputs": [
            {
                "name": name,
                "datatype": datatypes.get(name, ""),
                "shape": list(array.shape),
                "data": json_values(array),
            }
            for name, array in outputs.items()
        ],
    }


def json_values(array: Array) -> Any:
    """An array as nested lists that JSON can hold."""
    values = array.astype(float) if array.dtype.name == "bfloat16" else array
    return _plain(values.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _same_length(outputs: Mapping[str, Array]) -> bool:
    return len({array.shape[0] if array.ndim else None for array in outputs.values()} | {None}) == 2


def _values(array: Any) -> str:
    """The values of a row on one line: all, or the first few and how many there are."""
    import numpy as np

    flat = np.asarray(array, dtype=object).ravel()
    shown = [_value(value) for value in flat[:_SHOWN_VALUES]]
    if flat.size == 1:
        return shown[0]
    rest = f" ... {flat.size} values" if flat.size > _SHOWN_VALUES else ""
    return f"[{' '.join(shown)}{rest}]"


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.4g}" if isinstance(value, float) or hasattr(value, "dtype") else str(value)
