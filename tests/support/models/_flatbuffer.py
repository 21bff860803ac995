"""FlatBuffers, written from a tree of values: for formats whose packages are too heavy.

Every table, vector and string is written behind what refers to it, so all offsets lead forwards.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Int8:
    """A byte."""

    value: int


@dataclass(frozen=True)
class Int32:
    """A signed number of 32 bits."""

    value: int


@dataclass(frozen=True)
class Uint32:
    """An unsigned number of 32 bits."""

    value: int


@dataclass(frozen=True)
class Table:
    """Values by the number of their field; text is a string, bytes are a vector of bytes."""

    fields: Mapping[int, object]


@dataclass(frozen=True)
class Vector:
    """Numbers of one kind, or tables."""

    items: Sequence[object]


def serialize(root: Table, identifier: bytes) -> bytes:
    """The file: the root table's offset, the identifier of the format, and the rest."""
    out = bytearray(4) + identifier
    _point(out, 0, root)
    return bytes(out)


_SCALARS = {Int8: "<b", Int32: "<i", Uint32: "<I"}


def _point(out: bytearray, place: int, value: object) -> None:
    """Appends `value` and writes at `place` how far ahead it is."""
    if isinstance(value, Table):
        target = _table(out, value)
    elif isinstance(value, Vector):
        target = _vector(out, value)
    else:
        assert isinstance(value, str | bytes)
        data = value.encode() if isinstance(value, str) else value
        _align(out, 16, 12)  # the bytes themselves, behind their number
        target = len(out)
        out += struct.pack("<I", len(data)) + data + b"\0"
    struct.pack_into("<I", out, place, target - place)


def _table(out: bytearray, table: Table) -> int:
    count = max(table.fields, default=-1) + 1
    _align(out, 4, 0)
    vtable = len(out)
    out += bytes(4 + 2 * count)
    _align(out, 4, 0)
    start = len(out)
    out += struct.pack("<i", start - vtable)
    places = {}
    for number, value in sorted(table.fields.items()):
        places[number] = len(out)
        struct.pack_into("<H", out, vtable + 4 + 2 * number, len(out) - start)
        scalar = _SCALARS.get(type(value))
        out += struct.pack(scalar, getattr(value, "value", 0)) if scalar else bytes(4)
        _align(out, 4, 0)
    struct.pack_into("<HH", out, vtable, 4 + 2 * count, len(out) - start)
    for number, value in table.fields.items():
        if type(value) not in _SCALARS:
            _point(out, places[number], value)
    return start


def _vector(out: bytearray, vector: Vector) -> int:
    _align(out, 4, 0)
    start = len(out)
    out += struct.pack("<I", len(vector.items))
    if all(type(item) in _SCALARS for item in vector.items):
        for item in vector.items:
            out += struct.pack(_SCALARS[type(item)], getattr(item, "value", 0))
        return start
    out += bytes(4 * len(vector.items))
    for index, item in enumerate(vector.items):
        _point(out, start + 4 + 4 * index, item)
    return start


def _align(out: bytearray, size: int, remainder: int) -> None:
    while len(out) % size != remainder:
        out.append(0)
