"""What a message says of itself at its top, read without unpacking its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["CallNames", "call_names"]

_SERVICE = "/inference.GRPCInferenceService/"
_SECOND = ("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting")
"""RPCs whose message names the model in its second field, and no version."""
_MAX_FIELDS = 16
"""Looked at: whoever means to be read says it first, and nobody else gets the event loop."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class CallNames(NamedTuple):
    """What a request is about; "" = it does not say."""

    model: str = ""
    version: str = ""
    request_id: str = ""


def call_names(method: str, message: bytes) -> CallNames:
    """Reads the first message of a call.

    Args:
        method: path of the RPC.
        message: as the client sent it: anything may be wrong with it.
    """
    rpc = method.removeprefix(_SERVICE)
    is_second = rpc in _SECOND
    if rpc == method or not (is_second or rpc.startswith("Model")):
        return CallNames()
    fields: dict[int, str] = {}
    try:
        for number, value in _texts(message):
            fields.setdefault(number, value.decode(errors="replace"))
    except (IndexError, ValueError):
        return CallNames()
    if is_second:
        return CallNames(fields.get(2, ""))
    has_id = rpc in ("ModelInfer", "ModelStreamInfer")
    return CallNames(fields.get(1, ""), fields.get(2, ""), fields.get(3, "") if has_id else "")


def _texts(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each of the first fields that has some, up to what comes behind names."""
    at = 0
    for _ in range(_MAX_FIELDS):
        if at >= len(message):
            return
        key, at = _varint(message, at)
        size, kind = 0, key & 7
        if key >> 3 > 3:
            return
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + min(size, 256)]
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than 64 bits")
