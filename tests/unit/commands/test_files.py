"""Reading .npy, .npz, .json and .csv."""

import json
from pathlib import Path

import numpy as np
import pytest

from penstock.commands._failure import CommandError
from penstock.commands._files import Contents, Loaded, read_file
from penstock.commands._interface import InputInterface, ModelInterface

NUMBERS = ModelInterface("m", (InputInterface("X", "FP32", (3,), True),), ("Y",), 8)
TEXTS = ModelInterface("m", (InputInterface("X", "BYTES", (2,), True),), ("Y",), 8)
TWO = ModelInterface(
    "m",
    (InputInterface("age", "FP32", (1,), True), InputInterface("name", "BYTES", (1,), True)),
    ("Y",),
    8,
)


def sole(contents: Contents) -> Loaded:
    assert isinstance(contents, Loaded)
    return contents


def by_name(contents: Contents) -> dict[str, Loaded]:
    assert isinstance(contents, dict)
    return contents


def test_npy_keeps_its_type(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.int16).reshape(2, 3))
    loaded = sole(read_file(path, NUMBERS))
    assert loaded.array.dtype == np.int16
    assert loaded.array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not loaded.is_text


def test_npz_gives_arrays_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros(3), Z=np.ones(2))
    loaded = by_name(read_file(path, NUMBERS))
    assert {name: each.array.tolist() for name, each in loaded.items()} == {
        "X": [0, 0, 0],
        "Z": [1, 1],
    }
    assert loaded["X"].where == f"{path}:X"


def test_json_list_is_one_unnamed_array(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[[1, 2.5, 3]]")
    loaded = sole(read_file(path, NUMBERS))
    assert loaded.array.tolist() == [[1, 2.5, 3]]
    assert loaded.is_text


def test_json_object_gives_arrays_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"age": [[41]], "name": [["Ann"]]}')
    loaded = by_name(read_file(path, TWO))
    assert loaded["age"].array.tolist() == [[41]]
    assert loaded["name"].array.tolist() == [["Ann"]]


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_json_v2_request_takes_flat_and_nested_data(tmp_path: Path, data: list[object]) -> None:
    path = tmp_path / "a.json"
    entry = {"name": "X", "shape": [2, 2], "datatype": "FP32", "data": data}
    path.write_text(json.dumps({"inputs": [entry]}))
    assert by_name(read_file(path, NUMBERS))["X"].array.tolist() == [[1, 2], [3, 4]]


def test_json_keeps_64_bit_integers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"[{2**63 - 1}, {-(2**63)}]")
    assert sole(read_file(path, NUMBERS)).array.tolist() == [2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("3", "expected an object or a list"),
        ("[[1, 2], [3]]", "not of equal length"),
        ("[1, null]", "expected numbers, booleans or strings"),
        ('[1, "a"]', "only one of these"),
        ("[true, 2]", "only one of these"),
        ('{"inputs": [{"data": [1]}]}', "has no name"),
        ('{"inputs": [{"name": "X", "shape": [3], "data": [1]}]}', "do not make shape [3]"),
        ('{"inputs": [{"name": "X", "shape": [-1], "data": [1]}]}', "no list of dimensions"),
        ('{"inputs": [{"name": "X", "shape": [1]}]}', "expected numbers"),
    ],
)
def test_wrong_json_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=r"cannot read .*a\.json as \.json") as caught:
        read_file(path, NUMBERS)
    assert reason in str(caught.value)


def test_csv_line_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,2,3\n4,5,6.5\n")
    assert sole(read_file(path, NUMBERS)).array.tolist() == [[1, 2, 3], [4, 5, 6.5]]


def test_csv_header_without_numbers_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\r\n1,2,3\r\n")
    assert sole(read_file(path, NUMBERS)).array.tolist() == [[1, 2, 3]]


def test_csv_columns_named_after_inputs_become_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name,age\n"Ann, B.",41\nBob,7\n')
    loaded = by_name(read_file(path, TWO))
    assert loaded["age"].array.tolist() == [[41], [7]]
    assert loaded["name"].array.tolist() == [["Ann, B."], ["Bob"]]


def test_csv_for_strings_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\nc,d\n")
    assert sole(read_file(path, TEXTS)).array.tolist() == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no rows"),
        ("a,b,c\n", "no rows"),
        ("1,2,3\n4,5\n", "row 2 has 2 cells, the first has 3"),
        ("1,2,3\n4,x,6\n", "row 2: 'x' is not a number"),
        ("a,b,c\n4,x,6\n", "row 2: 'x' is not a number"),
    ],
)
def test_wrong_csv_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(CommandError, match=r"as \.csv") as caught:
        read_file(path, NUMBERS)
    assert reason in str(caught.value)


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such file or directory"):
        read_file(tmp_path / "none.npy", NUMBERS)


def test_unknown_suffix_lists_the_known(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.touch()
    with pytest.raises(CommandError, match=r"unknown suffix '\.parquet', expected one of \.npy"):
        read_file(path, NUMBERS)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00", b"PK\x03\x04 cut"])
def test_garbage_arrays_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="cannot read"):
        read_file(path, NUMBERS)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CommandError, match="allow_pickle"):
        read_file(path, NUMBERS)


def npy(header: bytes) -> bytes:
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000, 100000), }"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.json", b"[" * 100_000, id="json-nested-without-end"),
        pytest.param("a.csv", b'"' + b"1" * 200_000 + b'"\n', id="csv-with-a-huge-cell"),
        pytest.param("a.npy", npy(b'{"descr": ((((('), id="npy-with-open-brackets"),
        pytest.param("a.npy", npy(HUGE), id="npy-that-claims-petabytes"),
        pytest.param("a.npz", b"PK\x03\x04", id="npz-cut-short"),
    ],
)
def test_file_that_its_parser_chokes_on_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CommandError, match=f"^cannot read .*{name} as "):
        read_file(tmp_path / name, NUMBERS)


def test_npz_whose_data_is_damaged_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=np.ones((2, 400), np.float32))
    data = bytearray(path.read_bytes())
    data[60:80] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(CommandError, match="^cannot read .*a.npz as .npz: "):
        read_file(path, NUMBERS)
