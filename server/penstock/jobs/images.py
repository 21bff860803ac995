"""A directory of images: one row each, with the columns `path` and the model's input.

    [h, w]            grey                    [n]  grey, n a square number: the square, row by row
    [h, w, c]         c channels last         c is 1 (grey), 3 (RGB) or 4 (RGBA)
    [c, h, w]         c channels first

An image of another size is resized (bilinear). Pixels are 0 to 255, times the scale. A file that
is no image is a row that is rejected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.jobs.convert import Reject
from penstock.jobs.failures import PlanError
from penstock.jobs.model import NUMPY_TYPES, ModelInfo, TensorInfo
from penstock.jobs.plan import Column
from penstock.jobs.source import Block, ReadOptions, Skip
from penstock.jobs.storage import FoundFile, reason_of

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
PATH = "path"


@dataclass(frozen=True, slots=True)
class ImageRows:
    """How images become rows.

    Attributes:
        name: of the input that takes them.
        dtype: of its values.
        shape: of a row.
        size: width and height.
        channels: values per pixel.
        order: axes of a row, of "hwc", "chw", "hw" or "flat".
        scale: what each pixel is multiplied with.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    size: tuple[int, int]
    channels: int
    order: str
    scale: float


def image_rows(model: ModelInfo, scale: float) -> ImageRows:
    """How images become rows of a model's only input.

    Raises:
        PlanError: it takes no images.
    """
    if len(model.inputs) != 1:
        names = ", ".join(f"'{tensor.name}'" for tensor in model.inputs)
        raise PlanError(f"model '{model.name}' has inputs {names}: images make one")
    (tensor,) = model.inputs
    layout = _layout(tensor)
    dtype = NUMPY_TYPES.get(tensor.datatype)
    if layout is None or dtype is None or tensor.datatype == "BOOL":
        raise PlanError(
            f"model '{model.name}', input '{tensor.name}' takes {tensor.describe()}, expected "
            "numbers of a shape [h, w], [h, w, channels], [channels, h, w] or a square number"
        )
    if dtype == np.int8:  # the others hold 0 to 255; pixels would wrap
        raise PlanError(
            f"model '{model.name}', input '{tensor.name}' takes INT8, which cannot hold pixels of "
            "0 to 255: write the images as arrays of the values that it expects"
        )
    if dtype.kind in "iu" and scale != 1.0:
        raise PlanError(f"input '{tensor.name}' takes {tensor.datatype}: pixels cannot be scaled")
    width, height, channels, order = layout
    return ImageRows(tensor.name, dtype, tensor.shape, (width, height), channels, order, scale)


def _layout(tensor: TensorInfo) -> tuple[int, int, int, str] | None:
    row = tensor.shape
    if not row or min(row) <= 0:
        return None
    if len(row) == 1 and math.isqrt(row[0]) ** 2 == row[0]:
        return math.isqrt(row[0]), math.isqrt(row[0]), 1, "flat"
    if len(row) == 2:
        return row[1], row[0], 1, "hw"
    if len(row) == 3 and row[2] in _MODES:
        return row[1], row[0], row[2], "hwc"
    if len(row) == 3 and row[0] in _MODES:
        return row[2], row[1], row[0], "chw"
    return None


class ImageReader:
    """One image as one row."""

    def __init__(self, filesystem: Any, file: FoundFile, options: ReadOptions) -> None:
        if options.image_rows is None:
            raise PlanError("images are not read here")
        self._filesystem = filesystem
        self._path = file.path
        self._as: ImageRows = options.image_rows
        self.rows: int | None = 1
        values = pa.list_(pa.from_numpy_dtype(self._as.dtype), math.prod(self._as.shape))
        self.columns: tuple[Column, ...] = (
            Column(PATH, pa.string()),
            Column(self._as.name, values),
        )

    def blocks(self, names: Sequence[str], skip: Skip) -> Iterator[Block]:
        """The row, or why there is none."""
        if skip(0, 1):
            return
        kinds = {column.name: column.type for column in self.columns}
        schema = pa.schema([pa.field(name, kinds[name]) for name in names])
        try:
            row = self._read()
        except (OSError, SyntaxError, ValueError) as error:
            reason = f"{self._path} cannot be read: {reason_of(error)}"
            empty = pa.RecordBatch.from_pylist([], schema=schema)
            yield Block(0, empty, 1, np.empty(0, np.int64), (Reject(0, reason),))
            return
        flat = pa.FixedSizeListArray.from_arrays(pa.array(row.reshape(-1)), row.size)
        columns = {PATH: pa.array([self._path], pa.string()), self._as.name: flat}
        yield Block(0, pa.record_batch([columns[name] for name in names], schema=schema), 1)

    def _read(self) -> Any:
        try:
            from PIL import Image
        except ImportError:
            raise PlanError("reading images needs Pillow: pip install 'penstock[images]'") from None
        with self._filesystem.open_input_file(self._path) as stream:
            try:
                image = Image.open(stream).convert(_MODES[self._as.channels])
            except Image.DecompressionBombError as error:
                raise ValueError(str(error)) from None
        if image.size != self._as.size:
            image = image.resize(self._as.size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image).reshape(image.height, image.width, self._as.channels)
        if self._as.order == "chw":
            pixels = np.moveaxis(pixels, -1, 0)
        return np.ascontiguousarray(pixels * self._as.scale, self._as.dtype)
