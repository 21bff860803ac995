"""Images as one row of an input, times a scale; what they become is `penstock.jobs.pixels`'s."""

from __future__ import annotations

from pathlib import Path

from penstock.commands._failure import CommandError, os_reason
from penstock.commands._files import Loaded
from penstock.commands._interface import InputInterface


def read_image(path: Path, target: InputInterface, scale: float) -> Loaded:
    """Reads an image as one row of an input.

    Args:
        path: the image file.
        target: the input.
        scale: what every pixel is multiplied with.

    Raises:
        CommandError: no Pillow, no readable image, or no input for images.
    """
    from penstock.jobs.pixels import NEEDS_PILLOW, SHAPES, layout_of, read_pixels

    row = target.row_shape
    if not target.has_batch and len(row) in (2, 4) and row[0] in (1, -1):
        row = row[1:]  # the model's own batch dimension
    layout = layout_of(row)
    if layout is None:
        raise CommandError(
            f"input '{target.name}' takes {target.describe()}: no shape for an image like {path}, "
            f"expected {SHAPES} of values"
        )
    try:
        pixels = read_pixels(path, layout)
    except ImportError:
        raise CommandError(f"reading {path} {NEEDS_PILLOW}") from None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from None
    except ValueError as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    return Loaded(pixels if scale == 1.0 else pixels * scale, str(path), is_text=True, is_row=True)
