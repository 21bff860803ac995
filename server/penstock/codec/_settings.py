"""Requests and responses of TraceSetting and LogSettings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock._messages import pb
from penstock.codec._control import parse_message


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A TraceSettingRequest. settings: values by name; none = back to the default."""

    model_name: str
    settings: Mapping[str, tuple[str, ...]]


def parse_trace_request(data: bytes) -> TraceRequest:
    """Reads a TraceSettingRequest.

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    message = parse_message(pb.TraceSettingRequest, data)
    settings = {name: tuple(value.value) for name, value in message.settings.items()}
    return TraceRequest(message.model_name, settings)


def encode_trace_settings(settings: Mapping[str, Sequence[str]]) -> bytes:
    """The bytes of a TraceSettingResponse."""
    response = pb.TraceSettingResponse()
    for name, values in settings.items():
        response.settings[name].value.extend(values)
    return response.SerializeToString()


def parse_log_request(data: bytes) -> dict[str, bool | int | str | None]:
    """Reads a LogSettingsRequest: values by name; None = a setting without a value.

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    message = parse_message(pb.LogSettingsRequest, data)
    settings: dict[str, bool | int | str | None] = {}
    for name, value in message.settings.items():
        kind = value.WhichOneof("parameter_choice")
        settings[name] = None if kind is None else getattr(value, kind)
    return settings


def encode_log_settings(settings: Mapping[str, bool | int | str]) -> bytes:
    """The bytes of a LogSettingsResponse."""
    response = pb.LogSettingsResponse()
    for name, value in settings.items():
        if isinstance(value, bool):
            response.settings[name].bool_param = value
        elif isinstance(value, int):
            response.settings[name].uint32_param = value
        else:
            response.settings[name].string_param = value
    return response.SerializeToString()
