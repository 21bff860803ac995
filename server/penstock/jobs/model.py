"""What a job knows of a model, and the seam to what answers its requests."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@functools.cache
def numpy_types() -> Mapping[str, np.dtype[Any]]:
    """The wire datatypes of fixed size that numpy has; the client's table.

    The others: BF16 is carried as float32, BYTES as Arrow's.
    """
    from penstock_client.tensors import NUMPY_TYPES

    return NUMPY_TYPES


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output, one row of it.

    Attributes:
        name: of the tensor.
        datatype: wire datatype.
        shape: of one row as a file holds it, -1 = any length; () is a scalar.
        wire_shape: of one row on the wire, where that has dimensions of 1 that files leave out.
        optional: inputs: may be left out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    wire_shape: tuple[int, ...]
    optional: bool = False

    def describe(self) -> str:
        """For messages: "FP32 [64]"."""
        return f"{self.datatype} {list(self.shape)}" if self.shape else self.datatype


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that a job runs.

    Attributes:
        name: of the model.
        version: the one that answers every request of the job.
        inputs: what it takes.
        outputs: what it gives.
        max_batch_size: rows per request at most; 0 = it does not batch, a request is one row.
        digest: what identifies its content; of a server's model, of its configuration.
        has_own_batch: a model that does not batch whose tensors begin with a dimension of 1 or of
            any length: one row is sent with a 1 before it.
        most_request_rows: no request has more rows, whatever is asked for; 0 = no such bound.
    """

    name: str
    version: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch_size: int = 0
    digest: str = ""
    has_own_batch: bool = False
    most_request_rows: int = 0

    @property
    def has_batch(self) -> bool:
        """Whether the first dimension on the wire counts rows."""
        return self.max_batch_size > 0 or self.has_own_batch


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A tensor as a model declares it, batch dimension included."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


def model_info(
    name: str,
    version: str,
    tensors: tuple[Sequence[WireTensor], Sequence[WireTensor]],
    max_batch_size: int,
    digest: str,
) -> ModelInfo:
    """Puts together what a model declares.

    Args:
        name: of the model.
        version: of the model.
        tensors: inputs and outputs.
        max_batch_size: of its configuration.
        digest: of its content.
    """
    inputs, outputs = tensors
    every = (*inputs, *outputs)
    has_own_batch = (
        max_batch_size == 0
        and bool(every)
        and all(len(tensor.shape) > 1 and tensor.shape[0] in (1, -1) for tensor in every)
    )
    has_batch = max_batch_size > 0 or has_own_batch
    return ModelInfo(
        name,
        version,
        tuple(_row_of(tensor, has_batch) for tensor in inputs),
        tuple(_row_of(tensor, has_batch) for tensor in outputs),
        max_batch_size,
        digest,
        has_own_batch,
    )


def _row_of(tensor: WireTensor, has_batch: bool) -> TensorInfo:
    wire_shape = tensor.shape[1:] if has_batch else tensor.shape
    shape = () if wire_shape == (1,) else wire_shape  # a file holds a value, not a list of one
    return TensorInfo(tensor.name, tensor.datatype, shape, wire_shape, tensor.optional)


@dataclass(slots=True, eq=False)  # one per request: a frozen one takes three times as long
class TensorRows:
    """Rows of one input; not changed once made.

    Attributes:
        name: of the input.
        datatype: wire datatype.
        shape: of a row on the wire.
        values: [rows, *shape] of the datatype's numpy type (BF16: float32), C order; of BYTES a
            large_binary Arrow array of rows x elements values without nulls.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Any

    def slice(self, start: int, stop: int) -> TensorRows:
        """Some of the rows; nothing is copied."""
        if self.datatype != "BYTES":
            return TensorRows(self.name, self.datatype, self.shape, self.values[start:stop])
        size = math.prod(self.shape)
        part = self.values.slice(start * size, (stop - start) * size)
        return TensorRows(self.name, self.datatype, self.shape, part)

    def array(self) -> Array:
        """As numpy; BYTES as an object array of bytes."""
        if self.datatype != "BYTES":
            values: Array = self.values
            return values
        size = math.prod(self.shape)
        objects = self.values.to_numpy(zero_copy_only=False)
        rows = len(self.values) // size if size else 0
        return np.asarray(objects, dtype=object).reshape(rows, *self.shape)

    def raw(self) -> Any:
        """The bytes on the wire: a buffer, copied only where the layout is another."""
        if self.datatype == "BYTES":
            return _length_prefixed(self.values)
        if self.datatype == "BF16":
            return bf16_bits(self.values)
        return np.ascontiguousarray(self.values).reshape(-1).view(np.uint8).data


def _length_prefixed(values: Any) -> Any:
    """Each value after its length as four bytes, little-endian: one pass in Arrow, no Python."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<u4")
    if len(lengths) == 0:
        return b""
    prefixes = pa.Array.from_buffers(
        pa.binary(4), len(lengths), [None, pa.py_buffer(np.ascontiguousarray(lengths))]
    )
    joined = pc.binary_join_element_wise(
        prefixes.cast(pa.large_binary()), values, pa.scalar(b"", pa.large_binary())
    )
    _, offsets, data = joined.buffers()
    ends = np.frombuffer(offsets, "<i8")
    first, last = int(ends[joined.offset]), int(ends[joined.offset + len(joined)])
    return data.slice(first, last - first)


def bf16_bits(values: Array) -> Any:
    """The nearest bfloat16 of each float32, ties to even, as bytes; NaN stays NaN."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    with np.errstate(over="ignore"):  # only a NaN can wrap, and it takes the other branch below
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16
    quiet_nan = (bits >> 16) | 0x0040
    return np.where(np.isnan(values), quiet_nan, rounded).astype("<u2").tobytes()


class Engine(Protocol):
    """What answers the requests of a job.

    Threading: confined to the event loop.
    """

    async def describe(self, model: str, version: str) -> ModelInfo:
        """The model and the version that is to answer; raises JobError where there is none."""

    async def infer(self, model: ModelInfo, inputs: Sequence[TensorRows]) -> Mapping[str, Array]:
        """Runs one request; BYTES outputs are object arrays of bytes, BF16 ones are float32.

        Raises:
            EngineError: why there is no answer.
        """
