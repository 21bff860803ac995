"""Golden requests: how they are written, and how near an answer must be."""

import json
import math
import struct
from typing import Any

import pytest

from penstock.store.failures import RefusedError
from penstock.store.golden import differences, read_golden, split_golden


def tensor(name: str, datatype: str, shape: list[int], data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def golden(*outputs: dict[str, Any], **more: Any) -> bytes:
    inputs = [tensor("x", "FP32", [1, 2], [[1, 2]])]
    return json.dumps({"inputs": inputs, "outputs": list(outputs), **more}).encode()


def compare(content: bytes, *got: tuple[str, str, tuple[int, ...], bytes]) -> list[str]:
    return list(differences(read_golden(content, "g"), got))


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def test_inputs_are_in_wire_layout() -> None:
    (x,) = read_golden(golden(tensor("y", "FP32", [1], [0])), "g").inputs
    assert (x.shape, x.data) == ((1, 2), floats(1, 2))


@pytest.mark.parametrize("value", [0.5, 0.5000009, 0.5 + 5e-6])
def test_answer_within_the_default_tolerance(value: float) -> None:
    content = golden(tensor("y", "FP32", [1], [0.5]))
    assert compare(content, ("y", "FP32", (1,), floats(value))) == []


def test_difference_names_tensor_place_and_distance() -> None:
    content = golden(tensor("y", "FP32", [2, 2], [0, 1, 2, 3]), tolerance={"absolute": 0.5})
    assert compare(content, ("y", "FP32", (2, 2), floats(0.25, 1, 2, 5))) == [
        "output 'y' is off by 2 at [1, 1]: expected 3, got 5, allowed 0.5; 1 of 4 elements are off"
    ]


def test_output_has_a_tolerance_of_its_own() -> None:
    own = tensor("y", "FP32", [1], [100], tolerance={"relative": 0.1})
    assert compare(golden(own), ("y", "FP32", (1,), floats(109))) == []
    assert len(compare(golden(own), ("y", "FP32", (1,), floats(111)))) == 1


def test_nan_and_infinity_equal_themselves_only() -> None:
    content = golden(tensor("y", "FP32", [2], ["NaN", "Infinity"]))
    assert compare(content, ("y", "FP32", (2,), floats(math.nan, math.inf))) == []
    (told,) = compare(content, ("y", "FP32", (2,), floats(math.nan, 1)))
    assert "at [1]: expected inf, got 1" in told
    (told,) = compare(content, ("y", "FP32", (2,), floats(1, math.inf)))
    assert "at [0]: expected nan, got 1" in told


def test_whole_numbers_and_strings_are_equal_or_not() -> None:
    numbers = golden(tensor("y", "INT64", [2], [3, 4]), tolerance={"absolute": 10})
    assert compare(numbers, ("y", "INT64", (2,), struct.pack("<2q", 3, 5))) == [
        "output 'y' at [1]: expected 4, got 5; 1 of 2 elements differ"
    ]
    texts = golden(tensor("y", "BYTES", [1], ["NaN"]))
    assert compare(texts, ("y", "BYTES", (1,), b"\3\0\0\0NaN")) == []
    assert "expected b'NaN', got b'no'" in compare(texts, ("y", "BYTES", (1,), b"\2\0\0\0no"))[0]


def test_missing_output_and_other_shape_are_told() -> None:
    content = golden(tensor("y", "FP32", [1], [0]), tensor("z", "FP32", [1], [0]))
    assert compare(content, ("y", "FP32", (1, 1), floats(0))) == [
        "output 'y': expected FP32 [1], got FP32 [1, 1]",
        "output 'z' is missing",
    ]


def test_output_that_is_not_listed_is_not_looked_at() -> None:
    content = golden(tensor("y", "FP32", [1], [0]))
    got = ("y", "FP32", (1,), floats(0))
    assert compare(content, got, ("more", "FP32", (1,), floats(9))) == []


def test_file_of_several_requests_is_split() -> None:
    one = json.loads(golden(tensor("y", "FP32", [1], [0])))
    assert len(split_golden(json.dumps([one, one]).encode(), "f")) == 2


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"{", "is not JSON"),
        (b"[]", "has 0 requests"),
        (b"[" * 100_000, "is not JSON"),
        (golden(tensor("y", "FP32", [1], 7)).replace(b"7", b"[" * 900 + b"]" * 900), "golden"),
        (b"[1]", "expected inputs and outputs"),
        (golden(), "no inputs or no outputs"),
        (golden(tensor("y", "FP99", [1], [0])), "no datatype 'FP99'"),
        (golden(tensor("y", "FP32", [3], [0])), "shape .3. has 3 elements, data has 1"),
        (golden(tensor("y", "FP32", [-1], [0])), "expected a shape"),
        (golden(tensor("y", "UINT8", [1], [300])), "'y': data are no UINT8"),
        (golden(tensor("y", "INT32", [1], [1.5])), "'y': data are no INT32"),
        (golden(tensor("y", "BYTES", [1], [1])), "expected strings"),
        (golden(tensor("y", "FP32", [1], [0]), tolerance=1), "tolerance: expected absolute"),
        (golden(tensor("y", "FP32", [1], [0]), tolerance={"absolute": -1}), "tolerance"),
    ],
)
def test_file_that_is_none_is_refused(content: bytes, fragment: str) -> None:
    with pytest.raises(RefusedError, match=fragment):
        split_golden(content, "f")
