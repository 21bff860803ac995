"""Images as rows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from penstock.commands._failure import CommandError
from penstock.commands._images import read_image
from penstock.commands._interface import InputInterface
from penstock.jobs.pixels import Layout, layout_of


def rows(*row: int, batch: bool = True) -> InputInterface:
    return InputInterface("X", "FP32", row, batch)


@pytest.fixture
def red_left(tmp_path: Path) -> Path:
    """Two rows of five pixels: the left two red, the others black."""
    pixels = np.zeros((2, 5, 3), np.uint8)
    pixels[:, :2, 0] = 200
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        ((64,), Layout(8, 8, 1, "flat")),
        ((28, 20), Layout(28, 20, 1, "hw")),
        ((-1, -1, 3), Layout(-1, -1, 3, "hwc")),
        ((3, 224, 224), Layout(224, 224, 3, "chw")),
        ((1, 28, 28), Layout(28, 28, 1, "chw")),
        ((65,), None),
        ((-1,), None),
        ((5, 28, 28), None),
        ((), None),
    ],
)
def test_layout_follows_the_shape(row: tuple[int, ...], layout: Layout | None) -> None:
    assert layout_of(row) == layout


def test_channels_last_and_first_hold_the_same_pixels(red_left: Path) -> None:
    last = read_image(red_left, rows(2, 5, 3), 1.0).array
    first = read_image(red_left, rows(3, 2, 5), 1.0).array
    assert last[0].tolist() == [[200, 0, 0], [200, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert np.array_equal(np.moveaxis(first, 0, -1), last)


def test_scale_multiplies_pixels(red_left: Path) -> None:
    loaded = read_image(red_left, rows(2, 5, 3), 1 / 200)
    assert loaded.array.max() == 1.0
    assert loaded.is_row


def test_other_size_is_resized_to_the_inputs(red_left: Path) -> None:
    assert read_image(red_left, rows(3, 8, 16), 1.0).array.shape == (3, 8, 16)


def test_free_dimensions_keep_the_images_size(red_left: Path) -> None:
    assert read_image(red_left, rows(-1, -1, 1), 1.0).array.shape == (2, 5, 1)


def test_square_number_takes_a_grey_square(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    assert read_image(path, rows(64), 1.0).array.tolist() == list(range(64))


def test_models_own_batch_dimension_is_left_to_fit(red_left: Path) -> None:
    assert read_image(red_left, rows(1, 3, 2, 5, batch=False), 1.0).array.shape == (3, 2, 5)


def test_input_without_image_shape_is_refused(red_left: Path) -> None:
    with pytest.raises(CommandError, match="no shape for an image"):
        read_image(red_left, rows(65), 1.0)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n cut"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="cannot read"):
        read_image(path, rows(64), 1.0)


def test_truncated_image_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(CommandError, match="cannot read"):
        read_image(cut, rows(64), 1.0)


def test_missing_image_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such file"):
        read_image(tmp_path / "none.png", rows(64), 1.0)
