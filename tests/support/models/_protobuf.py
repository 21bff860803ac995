"""Protobuf's wire format, written field by field: for formats whose packages are too heavy."""

from __future__ import annotations

import struct


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field: an int as a varint, a float as 32 bits, text and messages with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (2**64 - 1))
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def entry(number: int, key: str, value: bytes) -> bytes:
    """One entry of a map from text to messages."""
    return field(number, field(1, key) + field(2, value))


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
