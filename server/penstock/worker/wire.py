"""Bodies of packets: what csrc/worker/messages.h says of them, read and written."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any

PACKET = struct.Struct("<IIQIIQQ")
"""kind, slab, batch, request, value, offset, size."""

_SIGNATURE = struct.Struct("<IiII")
_SPEC = struct.Struct("<IIII")
_RUN = struct.Struct("<III")
_INPUT = struct.Struct("<IIIIQQ")
_REQUEST = struct.Struct("<IIqIII")
_PAIR = struct.Struct("<II")
_RESULT = struct.Struct("<III")
_OUTPUT = struct.Struct("<IIIQQ")
_U32 = struct.Struct("<I")
_VALUES = (struct.Struct("<Q"), struct.Struct("<q"), struct.Struct("<Q"), struct.Struct("<d"))


class Kind(IntEnum):
    """Kinds of packets."""

    MAP = 1
    UNMAP = 2
    START = 3
    RUN = 4
    CREDIT = 5
    CANCEL = 6
    TAKEN = 7
    NO_ROOM = 11
    DESCRIBED = 32
    READY = 33
    FAILED = 34
    GROW = 35
    RESPONSE = 36
    DONE = 37


@dataclass(frozen=True)
class Spec:
    """A tensor of the signature. dims: batch dimension included, -1 = any."""

    name: str
    datatype: int
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """What a model says of itself; max_batch_size -1: nothing of that."""

    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    max_batch_size: int = -1
    is_decoupled: bool = False
    answers_requests: bool = False
    batches_dynamically: bool = False


@dataclass(frozen=True)
class Request:
    """A request of a batch. timeout_us 0: none given; room: responses that may be sent at first."""

    rows: int
    room: int = 0
    timeout_us: int = 0
    id: str = ""
    wanted: tuple[int, ...] = ()
    parameters: dict[str, bool | int | float | str] = field(default_factory=dict)


InputRecord = tuple[int, int, int, int, int, tuple[int, ...]]
"""index, datatype, slab, offset, size, dims."""


@dataclass(frozen=True)
class Run:
    """A batch."""

    inputs: list[InputRecord]
    wanted: tuple[int, ...]
    requests: list[Request]


OutputRecord = tuple[int, int, int, int, tuple[int, ...]]
"""index, datatype, offset, size, dims."""

ResultRecord = tuple[int, bytes, Sequence[OutputRecord]]
"""gRPC code, text, outputs."""


@lru_cache(maxsize=64)
def _dims(rank: int) -> struct.Struct:
    return struct.Struct(f"<{rank}q")


@lru_cache(maxsize=64)
def _indices(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def encode_signature(signature: Signature) -> bytes:
    """The body of DESCRIBED."""
    flags = (
        1 * signature.is_decoupled
        + 2 * signature.answers_requests
        + 4 * signature.batches_dynamically
    )
    parts = [
        _SIGNATURE.pack(
            flags, signature.max_batch_size, len(signature.inputs), len(signature.outputs)
        )
    ]
    for spec in signature.inputs + signature.outputs:
        name = spec.name.encode()
        parts.append(_SPEC.pack(spec.datatype, int(spec.optional), len(spec.dims), len(name)))
        parts.append(_dims(len(spec.dims)).pack(*spec.dims))
        parts.append(name)
    return b"".join(parts)


def decode_run(body: Any, offset: int = 0) -> Run:
    """Reads the body of RUN at `offset` of a buffer."""
    inputs_count, wanted_count, requests_count = _RUN.unpack_from(body, offset)
    offset += _RUN.size
    inputs = []
    for _ in range(inputs_count):
        index, datatype, slab, rank, at, size = _INPUT.unpack_from(body, offset)
        offset += _INPUT.size
        inputs.append((index, datatype, slab, at, size, _dims(rank).unpack_from(body, offset)))
        offset += 8 * rank
    wanted = _indices(wanted_count).unpack_from(body, offset)
    offset += 4 * wanted_count
    requests = []
    for _ in range(requests_count):
        request, offset = _decode_request(body, offset)
        requests.append(request)
    return Run(inputs, wanted, requests)


def _decode_request(body: Any, offset: int) -> tuple[Request, int]:
    header = _REQUEST.unpack_from(body, offset)
    rows, room, timeout_us, wanted_count, parameters_count, id_size = header
    offset += _REQUEST.size
    wanted = _indices(wanted_count).unpack_from(body, offset)
    offset += 4 * wanted_count
    request_id, offset = _decode_text(body, offset, id_size)
    parameters: dict[str, bool | int | float | str] = {}
    for _ in range(parameters_count):
        kind, key_size = _PAIR.unpack_from(body, offset)
        key, offset = _decode_text(body, offset + _PAIR.size, key_size)
        if kind < len(_VALUES):
            (value,) = _VALUES[kind].unpack_from(body, offset)
            parameters[key] = bool(value) if kind == 0 else value
            offset += 8
        else:
            (size,) = _U32.unpack_from(body, offset)
            parameters[key], offset = _decode_text(body, offset + 4, size)
    return Request(rows, room, timeout_us, request_id, wanted, parameters), offset


def _decode_text(body: Any, offset: int, size: int) -> tuple[str, int]:
    if not size:
        return "", offset
    return bytes(body[offset : offset + size]).decode(errors="replace"), offset + size


def encode_results(results: Sequence[ResultRecord]) -> bytes:
    """The body of DONE."""
    return b"".join((_U32.pack(len(results)), *(encode_result(result) for result in results)))


def encode_result(result: ResultRecord) -> bytes:
    """The body of RESPONSE, and a part of DONE's."""
    code, text, outputs = result
    parts = [_RESULT.pack(code, len(text), len(outputs)), text]
    for index, datatype, offset, size, dims in outputs:
        parts.append(_OUTPUT.pack(index, datatype, len(dims), offset, size))
        parts.append(_dims(len(dims)).pack(*dims))
    return b"".join(parts)
