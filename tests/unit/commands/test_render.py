"""What commands print."""

import json

import numpy as np
import pytest

from penstock.commands import _render
from penstock.store.records import Report


def test_rows_are_lines_and_long_ones_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {"label": np.array([3, 5]), "p": np.full((2, 12), 0.25, np.float32)}
    _render.print_outputs(outputs, has_rows=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["row", "label", "p"]
    assert lines[-1][:3] == ["1", "5", "[0.25"]
    assert lines[-1][-2:] == ["12", "values]"]


def test_many_rows_say_how_many_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    _render.print_outputs({"Y": np.zeros((25, 1))}, has_rows=True)
    assert "and 5 more rows" in capsys.readouterr().out


def test_outputs_without_rows_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    _render.print_outputs({"Y": np.zeros((2, 2)), "Z": np.array(b"x")}, has_rows=False)
    out = capsys.readouterr().out
    assert "(2, 2)" in out
    assert "[0 0 0 0]" in out


def test_named_tuples_are_objects_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    _render.print_json({"reports": (Report("s", "FAILED", "no memory", "", 5), ("a", 1))})
    (report, plain) = json.loads(capsys.readouterr().out)["reports"]
    said = {"server": "s", "status": "FAILED", "reason": "no memory", "digest": "", "heard_ms": 5}
    assert (report, plain) == (said, ["a", 1])


def test_cells_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    _render.print_table(["[bold]a"], [["[red]b[/red]"]])
    assert "[red]b[/red]" in capsys.readouterr().out


def test_json_is_an_open_inference_response(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {
        "p": np.array([[0.5, np.nan], [np.inf, -np.inf]], np.float32),
        "s": np.array([[b"\xc3\xa4"], [b"\xff"]], object),
    }
    _render.print_json(_render.outputs_document(outputs, {"p": "FP32", "s": "BYTES"}, "m", "2"))
    document = json.loads(capsys.readouterr().out)
    assert (document["model_name"], document["model_version"]) == ("m", "2")
    assert document["outputs"] == [
        {
            "name": "p",
            "datatype": "FP32",
            "shape": [2, 2],
            "data": [[0.5, "NaN"], ["Infinity", "-Infinity"]],
        },
        {"name": "s", "datatype": "BYTES", "shape": [2, 1], "data": [["\u00e4"], ["\ufffd"]]},
    ]
