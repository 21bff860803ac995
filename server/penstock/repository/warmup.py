"""Warm-up requests: what a version runs on every instance before it takes traffic."""

from __future__ import annotations

import array
import math
import random
import struct
from collections.abc import Callable

from penstock.codec import RawTensor, Warmup, WarmupInput, build_infer_request
from penstock.errors import ConfigError
from penstock.repository.layout import MAX_TEXT_BYTES, ModelDirectory, inside

_SEED = 20  # the same values at every load: a failure repeats
_DIRECTORY = "warmup"
_SIZES = {"BOOL": 1, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8} | {
    f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)
}
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
    return _RANDOM[tensor.datatype](random.Random(_SEED), count * rows)


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


def _floats(code: str) -> Callable[[random.Random, int], bytes]:
    return lambda rng, count: array.array(code, (rng.random() for _ in range(count))).tobytes()


def _halves(rng: random.Random, count: int) -> bytes:
    return b"".join(struct.pack("<e", rng.random()) for _ in range(count))


def _brain_floats(rng: random.Random, count: int) -> bytes:
    """The upper half of each FP32."""
    return b"".join(struct.pack("<f", rng.random())[2:] for _ in range(count))


def _integers(size: int, limit: int) -> Callable[[random.Random, int], bytes]:
    def fill(rng: random.Random, count: int) -> bytes:
        return b"".join(rng.randrange(limit).to_bytes(size, "little") for _ in range(count))

    return fill


def _words(rng: random.Random, count: int) -> bytes:
    words = (f"{rng.getrandbits(32):08x}".encode() for _ in range(count))
    return b"".join(struct.pack("<I", len(word)) + word for word in words)


_RANDOM: dict[str, Callable[[random.Random, int], bytes]] = {
    "BOOL": _integers(1, 2),
    "FP16": _halves,
    "BF16": _brain_floats,
    "FP32": _floats("f"),
    "FP64": _floats("d"),
    "BYTES": _words,
} | {name: _integers(size, 128) for name, size in _SIZES.items() if "INT" in name}
