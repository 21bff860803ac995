"""Warm-up requests: what a version runs on every instance before it takes traffic."""

from __future__ import annotations

import math
import random
import struct

from penstock.codec import RawTensor, Warmup, WarmupInput, build_infer_request
from penstock.errors import ConfigError
from penstock.repository.layout import MAX_TEXT_BYTES, ModelDirectory, inside

_SEED = 20  # the same values at every load: a failure repeats
_DIRECTORY = "warmup"
_SIZES = {"BOOL": 1, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8} | {
    f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)
}
_FLOAT_CODES = {"FP16": "<e", "FP32": "<f", "FP64": "<d"}
_MAX_FILE_BYTES = 16 * MAX_TEXT_BYTES


def warmup_request(model: ModelDirectory, version: int, warmup: Warmup, has_batch: bool) -> bytes:
    """The bytes of the ModelInferRequest of one warm-up.

    Random integers are in [0, 128), other random numbers in [0, 1), random strings are short words.
    A file holds one row, in wire layout; every row of the batch is the same.

    Args:
        model: whose directory holds data files, in `warmup/`.
        version: to address.
        warmup: what to send.
        has_batch: the model has a batch dimension.

    Raises:
        ConfigError: a data file cannot be used.
    """
    rows = max(warmup.batch_size, 1)
    tensors = []
    for name, tensor in warmup.inputs.items():
        shape = (rows, *tensor.dims) if has_batch else tensor.dims
        field = f"model_warmup '{warmup.name}' input '{name}'"
        tensors.append(RawTensor(name, tensor.datatype, shape, _data(model, field, tensor, rows)))
    return build_infer_request(model.name, version, tensors)


def _data(model: ModelDirectory, field: str, tensor: WarmupInput, rows: int) -> bytes:
    count = math.prod(tensor.dims)
    if tensor.source == "file":
        return _file_data(model, field, tensor) * rows
    if tensor.source == "zero":
        return bytes(count * rows * _SIZES.get(tensor.datatype, 4))  # BYTES: empty strings
    return _random_data(tensor.datatype, count * rows)


def _file_data(model: ModelDirectory, field: str, tensor: WarmupInput) -> bytes:
    path = inside(model, model.path / _DIRECTORY, tensor.data_file, field)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            [f"{field}: cannot read '{tensor.data_file}': {error.strerror}"]
        ) from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError([f"{field}: '{tensor.data_file}' has more than {_MAX_FILE_BYTES} bytes"])
    expected = math.prod(tensor.dims) * _SIZES.get(tensor.datatype, 0)
    if expected and len(data) != expected:
        raise ConfigError(
            [
                f"{field}: '{tensor.data_file}' has {len(data)} bytes, "
                f"expected {expected} for one row"
            ]
        )
    return data


def _random_data(datatype: str, count: int) -> bytes:
    """`count` values picked at random from 256 of the type, a byte of all of them at a time.

    Written so that the interpreter does not step through the elements: there may be millions.
    """
    values = [_value(datatype, pick) for pick in range(256)]
    picks = random.Random(_SEED).randbytes(count)
    size = len(values[0])
    data = bytearray(size * count)
    for byte in range(size):
        data[byte::size] = picks.translate(bytes(value[byte] for value in values))
    return bytes(data)


def _value(datatype: str, pick: int) -> bytes:
    """The `pick`th of 256 values, in wire layout."""
    if datatype == "BYTES":
        return struct.pack("<I4s", 4, f"{pick:04x}".encode())
    if datatype == "BF16":  # the upper half of an FP32
        return struct.pack("<f", pick / 256)[2:]
    if datatype in _FLOAT_CODES:
        return struct.pack(_FLOAT_CODES[datatype], pick / 256)
    limit = 2 if datatype == "BOOL" else 128
    return (pick % limit).to_bytes(_SIZES[datatype], "little")
