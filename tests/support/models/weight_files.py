"""Models whose weights lie in files of their own, without the frameworks' packages.

Each computes OUTPUT = INPUT x 2 on FP32 [batch,3], the twos being its weights.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from tests.support.models._protobuf import entry, field, varint
from tests.support.models.openvino_files import (
    DT_FLOAT,
    TWOS,
    tensorflow_node,
    tensorflow_shape,
)

_DT_RESOURCE = 20
_TABLE_MAGIC = 0xDB4775248B80FB57


def saved_model(path: Path) -> list[Path]:
    """A TensorFlow SavedModel with a variable; returns the files of its variables."""
    kind = field(6, DT_FLOAT)
    shapes = {dims: field(7, tensorflow_shape(*dims)) for dims in ((-1, 3), (3,))}
    variable = {"dtype": kind, "shape": shapes[3,], "shared_name": field(2, "w")}
    placeholder = {"dtype": kind, "shape": shapes[-1, 3]}
    nodes = tensorflow_node("INPUT", "Placeholder", [], placeholder)
    nodes += tensorflow_node("w", "VarHandleOp", [], variable)
    nodes += tensorflow_node("read", "ReadVariableOp", ["w"], {"dtype": kind})
    nodes += tensorflow_node("OUTPUT", "Mul", ["INPUT", "read"], {"T": kind})
    nodes += field(4, field(1, 1500))  # made by a TensorFlow of this age

    def tensor(name: str) -> bytes:
        return field(1, f"{name}:0") + field(2, DT_FLOAT) + field(3, tensorflow_shape(-1, 3))

    signature = entry(1, "INPUT", tensor("INPUT")) + entry(2, "OUTPUT", tensor("OUTPUT"))
    signature += field(3, "tensorflow/serving/predict")
    graph = field(1, field(4, "serve")) + field(2, nodes)
    graph += entry(5, "serving_default", signature)
    folder = path / "variables"
    folder.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(field(1, 1) + field(2, graph))
    index, shard = folder / "variables.index", folder / "variables.data-00000-of-00001"
    header = field(1, 1) + field(3, field(1, 1))
    stored = field(1, DT_FLOAT) + field(2, tensorflow_shape(3)) + field(5, len(TWOS))
    index.write_bytes(_table([(b"", header), (b"w", stored)]))
    shard.write_bytes(TWOS)
    return [index, shard]


def paddle(path: Path) -> list[Path]:
    """A Paddle program with a parameter; returns the file of its parameters."""
    lod_tensor, feed_list, fetch_list, fp32 = 7, 9, 10, 5

    def variable(name: str, kind: int, dims: Sequence[int], is_kept: bool) -> bytes:
        body = field(1, kind)
        if dims:
            description = field(1, fp32) + b"".join(field(2, dim) for dim in dims)
            body += field(3, field(1, description))
        return field(3, field(1, name) + field(2, body) + field(3, int(is_kept)))

    def operation(kind: str, sources: dict[str, str], target: str, attributes: bytes) -> bytes:
        inputs = b"".join(field(1, field(1, k) + field(2, name)) for k, name in sources.items())
        outputs = field(2, field(1, "Out") + field(2, target))
        return field(4, inputs + outputs + field(3, kind) + attributes)

    column = field(4, field(1, "col") + field(2, 0) + field(3, 0))
    axis = field(4, field(1, "axis") + field(2, 0) + field(3, -1))
    block = field(1, 0) + field(2, 0)
    block += variable("feed", feed_list, [], True) + variable("fetch", fetch_list, [], True)
    for name in ("INPUT", "OUTPUT"):
        block += variable(name, lod_tensor, [-1, 3], False)
    block += variable("w", lod_tensor, [3], True)
    block += operation("feed", {"X": "feed"}, "INPUT", column)
    block += operation("elementwise_mul", {"X": "INPUT", "Y": "w"}, "OUTPUT", axis)
    block += operation("fetch", {"X": "OUTPUT"}, "fetch", column)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(field(1, block) + field(4, field(1, 2_006_000)))
    weights = path.with_suffix(".pdiparams")
    description = field(1, fp32) + field(2, 3)
    head = struct.pack("<IQIi", 0, 0, 0, len(description))
    weights.write_bytes(head + description + TWOS)
    return [weights]


def _table(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A sorted string table as TensorFlow's checkpoints have it: blocks, then where they are."""
    out = b""

    def put(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
        nonlocal out
        block = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs)
        block += struct.pack("<II", 0, 1)  # one restart, at the begin
        handle = varint(len(out)) + varint(len(block))
        out += block + b"\0"  # not compressed
        crc = crc32c(block + b"\0")
        out += struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
        return handle

    data, meta = put(entries), put([])
    footer = (meta + put([(b"~", data)])).ljust(40, b"\0")
    return out + footer + struct.pack("<Q", _TABLE_MAGIC)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit: RFC 3720, appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
