"""JSON: read with clear refusals, and written from protocol messages as Triton writes them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from google.protobuf.message import Message

from penstock_gateway.errors import HttpError

__all__ = ["as_object", "dumps", "loads", "message_to_json", "take"]

_INT64 = range(-(2**63), 2**63)


def loads(data: bytes | memoryview) -> Any:
    """The value. orjson itself refuses more than 1024 levels, NaN and invalid UTF-8.

    Raises:
        HttpError: it is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"failed to parse the request JSON buffer: {error.msg} at {error.pos}"
        raise HttpError(400, message) from None


def as_object(value: object, what: str) -> dict[str, Any]:
    """The value, which has to be an object; HttpError where it is not."""
    if not isinstance(value, dict):
        raise HttpError(400, f"expected {what} to be a JSON object")
    return value


def take(source: dict[str, Any], key: str, kind: type, default: Any, what: str) -> Any:
    """A member of an object; null stands for its absence.

    Raises:
        HttpError: it is of another type, or an int beyond 64 bits.
    """
    value = source.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {str: "a string", int: "a whole number", bool: "true or false"}
        names |= {list: "a list", dict: "an object"}
        raise HttpError(400, f"expected '{key}' of {what} to be {names[kind]}")
    if kind is int and value not in _INT64:
        raise HttpError(400, f"'{key}' of {what} is out of the range of 64 bits")
    return value


def dumps(value: object) -> bytes:
    """Numpy arrays become lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as Triton shows it: names as in the .proto, numbers as numbers, defaults printed.

    Messages and members of a oneof that are not set are left out.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence:
            if message.HasField(field.name):
                found[field.name] = _value(field, getattr(message, field.name))
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name["value"]
            found[field.name] = {str(key): _value(entry, each) for key, each in value.items()}
        elif field.is_repeated:
            found[field.name] = [_value(field, each) for each in value]
        else:
            found[field.name] = _value(field, value)
    return found


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return message_to_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
