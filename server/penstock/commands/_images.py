"""Images as one row of an input: size, channels and layout follow the input's shape.

    [h, w]            grey                    [n]  grey, n a square number: the square, row by row
    [h, w, c]         c channels last         c is 1 (grey), 3 (RGB) or 4 (RGBA)
    [c, h, w]         c channels first

An image of another size is resized (bilinear); a free dimension (-1) keeps the image's own. Pixels
are 0 to 255, times `scale`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.commands._failure import CommandError, os_reason
from penstock.commands._files import Loaded
from penstock.commands._interface import InputInterface

if TYPE_CHECKING:
    from PIL import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How pixels lie in a row; a size of -1 is the image's own.

    Attributes:
        height: rows of pixels.
        width: pixels per row.
        channels: values per pixel.
        order: axes of the row, of "hwc"; without c for grey, "flat" for one axis.
    """

    height: int
    width: int
    channels: int
    order: str


def layout_of(row: tuple[int, ...]) -> Layout | None:
    """The layout of an input's row; None when it holds no image."""
    if len(row) == 1 and row[0] > 0 and math.isqrt(row[0]) ** 2 == row[0]:
        return Layout(math.isqrt(row[0]), math.isqrt(row[0]), 1, "flat")
    if len(row) == 2:
        return Layout(row[0], row[1], 1, "hw")
    if len(row) == 3 and row[2] in _MODES:
        return Layout(row[0], row[1], row[2], "hwc")
    if len(row) == 3 and row[0] in _MODES:
        return Layout(row[1], row[2], row[0], "chw")
    return None


def read_image(path: Path, target: InputInterface, scale: float) -> Loaded:
    """Reads an image as one row of an input.

    Args:
        path: the image file.
        target: the input.
        scale: what every pixel is multiplied with.

    Raises:
        CommandError: no Pillow, no readable image, or no input for images.
    """
    row = target.row_shape
    if not target.has_batch and len(row) in (2, 4) and row[0] in (1, -1):
        row = row[1:]  # the model's own batch dimension
    layout = layout_of(row)
    if layout is None:
        raise CommandError(
            f"input '{target.name}' takes {target.describe()}: no shape for an image like {path}, "
            "expected [h, w], [h, w, channels], [channels, h, w] or a square number of values"
        )
    return _as_row(_open(path, layout), layout, path, scale)


def _open(path: Path, layout: Layout) -> Image.Image:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise CommandError(f"reading {path} needs Pillow: pip install 'penstock[images]'") from None
    try:
        with Image.open(path) as file:
            image = file.convert(_MODES[layout.channels])
    except UnidentifiedImageError:
        raise CommandError(f"cannot read {path}: it is no image Pillow knows") from None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from None
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    width = layout.width if layout.width > 0 else image.width
    height = layout.height if layout.height > 0 else image.height
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image


def _as_row(image: Image.Image, layout: Layout, path: Path, scale: float) -> Loaded:
    import numpy as np

    pixels = np.asarray(image)
    if layout.order == "flat":
        pixels = pixels.reshape(-1)
    elif layout.order == "hwc":
        pixels = pixels.reshape(*pixels.shape[:2], layout.channels)
    elif layout.order == "chw":
        pixels = np.moveaxis(pixels.reshape(*pixels.shape[:2], layout.channels), -1, 0)
    scaled = pixels if scale == 1.0 else pixels * np.float64(scale)
    return Loaded(scaled, str(path), is_text=True, is_row=True)
