"""What an ONNX file says of itself, read without an engine: the graph is skipped, not parsed.

Grammar, of a ModelProto, as far as it is read: field 1 IR version, 2 producer, 3 its version,
8 operator sets (1 domain, 2 version), 14 metadata (1 key, 2 value).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["onnx_facts"]

_MAX_FIELD_BYTES = 64 << 10
"""Longer texts are left out."""
_MAX_FIELDS = 10_000


def onnx_facts(path: Path) -> dict[str, Any]:
    """IR version, producer, operator sets and metadata; empty where the file is no ONNX file."""
    facts: dict[str, Any] = {}
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            for number, value in _fields(file, os.fstat(file.fileno()).st_size):
                if number == 1 and isinstance(value, int):
                    facts["ir_version"] = value
                elif number in (2, 3) and isinstance(value, bytes):
                    key = "producer" if number == 2 else "producer_version"
                    facts[key] = value.decode(errors="replace")
                elif number == 8 and isinstance(value, bytes):
                    fields = dict(_message(value))
                    domain = fields.get(1, b"")
                    version = fields.get(2, 0)
                    if isinstance(domain, bytes) and isinstance(version, int):
                        opsets[domain.decode(errors="replace") or "ai.onnx"] = version
                elif number == 14 and isinstance(value, bytes):
                    pair = [v for _, v in sorted(_message(value)) if isinstance(v, bytes)]
                    if len(pair) == 2:
                        metadata[pair[0].decode(errors="replace")] = pair[1].decode(
                            errors="replace"
                        )
    except (OSError, ValueError):
        return {}
    return {**facts, "opsets": opsets, "metadata": metadata} if opsets else {}


def _message(content: bytes) -> list[tuple[int, int | bytes]]:
    from io import BytesIO

    return list(_fields(BytesIO(content), len(content)))


def _fields(file: BinaryIO, size_bytes: int) -> Iterator[tuple[int, int | bytes]]:
    """Fields in order; those that are too long to be facts are skipped.

    Raises:
        ValueError: it is no message.
    """
    for _ in range(_MAX_FIELDS):
        if file.tell() >= size_bytes:
            return
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, _varint(file)
        elif kind == 2:
            length = _varint(file)
            if file.tell() + length > size_bytes:
                raise ValueError("a field is longer than the message")
            if length > _MAX_FIELD_BYTES:
                file.seek(length, os.SEEK_CUR)
            else:
                yield number, file.read(length)
        elif kind in (1, 5):
            file.seek(8 if kind == 1 else 4, os.SEEK_CUR)
        else:
            raise ValueError("there is no such type of field")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the message ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number has more than 64 bits")
