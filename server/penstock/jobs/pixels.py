"""Images as one row of an input: size, channels and layout follow the input's shape.

    [h, w]            grey                    [n]  grey, n a square number: the square, row by row
    [h, w, c]         c channels last         c is 1 (grey), 3 (RGB) or 4 (RGBA)
    [c, h, w]         c channels first

An image of another size is resized (bilinear); a free dimension (-1) keeps the image's own. Pixels
are 0 to 255.

For the command line too: neither this module nor its package imports anything that is heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SHAPES = "[h, w], [h, w, channels], [channels, h, w] or a square number"
"""For messages: the shapes that hold an image."""
NEEDS_PILLOW = "needs Pillow: pip install 'penstock[images]'"
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


def read_pixels(file: Any, layout: Layout) -> Any:
    """Reads an image.

    Args:
        file: its path, or a binary stream of it.
        layout: what is wanted of it.

    Returns:
        uint8, in the shape of the layout's row.

    Raises:
        ImportError: there is no Pillow.
        OSError: it cannot be read.
        ValueError: it is no image, or too large a one.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            image = opened.convert(_MODES[layout.channels])
    except UnidentifiedImageError:
        raise ValueError("it is no image Pillow knows") from None
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
    width = layout.width if layout.width > 0 else image.width
    height = layout.height if layout.height > 0 else image.height
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    if layout.order == "flat":
        return pixels.reshape(-1)
    if layout.order == "hw":
        return pixels
    pixels = pixels.reshape(height, width, layout.channels)
    return pixels if layout.order == "hwc" else np.moveaxis(pixels, -1, 0)
