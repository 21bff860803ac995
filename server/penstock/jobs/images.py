"""A directory of images: one row each, with the columns `path` and the model's input.

What of an image makes the row is `pixels`'s; here every dimension is fixed, and pixels are times
the scale. A file that is no image is a row that is rejected.
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
from penstock.jobs.model import ModelInfo, numpy_types
from penstock.jobs.pixels import NEEDS_PILLOW, SHAPES, Layout, layout_of, read_pixels
from penstock.jobs.plan import Column
from penstock.jobs.source import Block, ReadOptions, Skip
from penstock.jobs.storage import FoundFile, reason_of

PATH = "path"


@dataclass(frozen=True, slots=True)
class ImageRows:
    """How images become rows.

    Attributes:
        name: of the input that takes them.
        dtype: of its values.
        shape: of a row.
        layout: of its pixels.
        scale: what each pixel is multiplied with.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    layout: Layout
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
    layout = layout_of(tensor.shape) if min(tensor.shape, default=0) > 0 else None
    dtype = numpy_types().get(tensor.datatype)
    if layout is None or dtype is None or tensor.datatype == "BOOL":
        raise PlanError(
            f"model '{model.name}', input '{tensor.name}' takes {tensor.describe()}, expected "
            f"numbers of a shape {SHAPES}"
        )
    if dtype == np.int8:  # the others hold 0 to 255; pixels would wrap
        raise PlanError(
            f"model '{model.name}', input '{tensor.name}' takes INT8, which cannot hold pixels of "
            "0 to 255: write the images as arrays of the values that it expects"
        )
    if dtype.kind in "iu" and scale != 1.0:
        raise PlanError(f"input '{tensor.name}' takes {tensor.datatype}: pixels cannot be scaled")
    return ImageRows(tensor.name, dtype, tensor.shape, layout, scale)


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
        except (OSError, ValueError) as error:
            reason = f"{self._path} cannot be read: {reason_of(error)}"
            empty = pa.RecordBatch.from_pylist([], schema=schema)
            yield Block(0, empty, 1, np.empty(0, np.int64), (Reject(0, reason),))
            return
        flat = pa.FixedSizeListArray.from_arrays(pa.array(row.reshape(-1)), row.size)
        columns = {PATH: pa.array([self._path], pa.string()), self._as.name: flat}
        yield Block(0, pa.record_batch([columns[name] for name in names], schema=schema), 1)

    def _read(self) -> Any:
        with self._filesystem.open_input_file(self._path) as stream:
            try:
                pixels = read_pixels(stream, self._as.layout)
            except ImportError:
                raise PlanError(f"reading images {NEEDS_PILLOW}") from None
        return np.ascontiguousarray(pixels * self._as.scale, self._as.dtype)
