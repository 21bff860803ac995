"""Files on the command line put together to the inputs of a request."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from penstock.commands._failure import CommandError
from penstock.commands._inputs import InputOptions, gather
from penstock.commands._interface import InputInterface, ModelInterface, model_interface
from penstock_client import ModelMetadata, TensorMetadata

ONE = ModelInterface("one", (InputInterface("X", "FP32", (4,), True),), ("Y",), 8)
TWO = ModelInterface(
    "two",
    (
        InputInterface("A", "INT32", (2,), True),
        InputInterface("B", "INT32", (2,), True),
        InputInterface("C", "INT32", (2,), True, optional=True),
    ),
    ("Y",),
    8,
)
UNBATCHED = ModelInterface("alone", (InputInterface("X", "FP32", (2, 2), False),), ("Y",), 0)
PLAIN = InputOptions()


def saved(path: Path, *shape: int, value: float = 0) -> Path:
    np.save(path, np.full(shape, value, np.float32))
    return path


def test_files_of_one_input_add_their_rows_up(tmp_path: Path) -> None:
    files = [saved(tmp_path / "a.npy", 2, 4), saved(tmp_path / "b.npy", 4, value=1)]
    inputs = gather(files, [], ONE, PLAIN)
    assert inputs["X"][:, 0].tolist() == [0, 0, 1]


def test_images_become_one_row_each(tmp_path: Path) -> None:
    paths = [tmp_path / f"{grey}.png" for grey in (10, 20)]
    for path in paths:
        Image.new("L", (2, 2), int(path.stem)).save(path)
    inputs = gather(paths, [], ONE, InputOptions(scale=0.1))
    assert inputs["X"].tolist() == [[1.0] * 4, [2.0] * 4]
    assert inputs["X"].dtype == np.float32


def test_npz_names_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, A=np.ones((3, 2), np.int32), B=np.zeros((3, 2), np.int32))
    assert {name: a.shape for name, a in gather([path], [], TWO, PLAIN).items()} == {
        "A": (3, 2),
        "B": (3, 2),
    }


def test_named_files_are_for_their_input(tmp_path: Path) -> None:
    named = [("A", saved(tmp_path / "a.npy", 1, 2)), ("B", saved(tmp_path / "b.npy", 2, value=3))]
    assert gather([], named, TWO, PLAIN)["B"].tolist() == [[3, 3]]


def test_named_archive_gives_the_array_of_that_name_or_its_only_one(tmp_path: Path) -> None:
    both, other = tmp_path / "both.json", tmp_path / "other.json"
    both.write_text(json.dumps({"A": [[1, 1]], "B": [[2, 2]]}))
    other.write_text(json.dumps({"whatever": [[3, 3]]}))
    inputs = gather([], [("B", both), ("A", other)], TWO, PLAIN)
    assert {name: a.tolist() for name, a in inputs.items()} == {"A": [[3, 3]], "B": [[2, 2]]}


def test_named_archive_without_that_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"A": [[1, 1]], "B": [[2, 2]]}))
    with pytest.raises(CommandError, match=r"holds no array 'C', only 'A', 'B'"):
        gather([], [("C", path)], TWO, PLAIN)


def test_unnamed_file_for_several_inputs_asks_which(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="say which one .* --input NAME="):
        gather([saved(tmp_path / "a.npy", 1, 2)], [], TWO, PLAIN)


def test_unknown_input_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"model 'one' has no input 'Z' .* only 'X'"):
        gather([], [("Z", saved(tmp_path / "a.npy", 1, 4))], ONE, PLAIN)


def test_missing_input_is_named_unless_optional(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"model 'two' also wants 'B': "):
        gather([], [("A", saved(tmp_path / "a.npy", 1, 2))], TWO, PLAIN)


def test_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    named = [("A", saved(tmp_path / "a.npy", 1, 2)), ("B", saved(tmp_path / "b.npy", 3, 2))]
    with pytest.raises(CommandError, match="different numbers of rows: 'A' 1, 'B' 3"):
        gather([], named, TWO, PLAIN)


def test_model_without_batches_takes_one_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", 2, 2)
    assert gather([path], [], UNBATCHED, PLAIN)["X"].shape == (2, 2)
    with pytest.raises(CommandError, match="got 2 files, but the model does not batch"):
        gather([path, path], [], UNBATCHED, PLAIN)


def test_rows_of_different_shape_do_not_go_together(tmp_path: Path) -> None:
    free = ModelInterface("free", (InputInterface("X", "FP32", (-1,), True),), ("Y",), 8)
    files = [saved(tmp_path / "a.npy", 1, 2), saved(tmp_path / "b.npy", 1, 3)]
    with pytest.raises(CommandError, match=r"different shapes .* \[2\], \[3\]"):
        gather(files, [], free, PLAIN)


def test_interface_takes_the_batch_dimension_off() -> None:
    metadata = ModelMetadata(
        "m",
        ("1",),
        "p",
        (TensorMetadata("X", "FP32", (-1, 4)),),
        (TensorMetadata("Y", "FP32", ()),),
    )
    batched = model_interface(
        metadata, {"max_batch_size": 8, "input": [{"name": "X", "optional": True}]}
    )
    assert batched.inputs == (InputInterface("X", "FP32", (4,), True, True),)
    assert model_interface(metadata, {"max_batch_size": 0}).inputs[0].row_shape == (-1, 4)
