"""TraceSetting and LogSettings: what the settings are, and those that a client may change.

There is no tracing yet. Its settings are answered as a Triton that does not trace answers them; a
request that would change one is refused by name, and one that asks for what already is is fine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from penstock import codec
from penstock.errors import InvalidArgumentError, NotFoundError, UnimplementedError

__all__ = ["Logs", "SettingsHandlers"]

_TRACE: Mapping[str, tuple[str, ...]] = {
    "trace_file": ("",),
    "trace_level": ("OFF",),
    "trace_rate": ("1000",),
    "trace_count": ("-1",),
    "log_frequency": ("0",),
    "trace_mode": ("triton",),
}


class Logs(Protocol):
    """What of `observe.log_control.LogControl` the service needs."""

    def values(self) -> Mapping[str, bool | int | str]:
        """Every setting by its name."""

    def change(self, given: Mapping[str, bool | int | str | None]) -> None:
        """All of them, or none and a CoreError."""


class SettingsHandlers:
    """The RPCs, from request bytes to response bytes.

    Threading: confined to the event loop.
    Ownership: borrows the logs.
    """

    def __init__(self, logs: Logs, is_model: Callable[[str], bool]) -> None:
        """Args: logs, and whether a model of a name is served."""
        self._logs = logs
        self._is_model = is_model

    async def trace_setting(self, request: bytes) -> bytes:
        """The settings of the server, which are those of every model."""
        asked = codec.parse_trace_request(request)
        if asked.model_name and not self._is_model(asked.model_name):
            raise NotFoundError(f"Request for unknown model : {asked.model_name}")
        for name, values in sorted(asked.settings.items()):
            _check_trace(name, values)
        return codec.encode_trace_settings(_TRACE)

    async def log_settings(self, request: bytes) -> bytes:
        """Changes the given settings and answers with all."""
        given = codec.parse_log_request(request)
        if given:
            self._logs.change(given)
        return codec.encode_log_settings(self._logs.values())

    def by_rpc(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """The handlers by RPC name."""
        return {"TraceSetting": self.trace_setting, "LogSettings": self.log_settings}


def _check_trace(name: str, values: tuple[str, ...]) -> None:
    """Raises unless the setting is known and is already so; without values it means its default."""
    if name not in _TRACE:
        known = ", ".join(_TRACE)
        raise InvalidArgumentError(f"unknown trace setting '{name}', expected one of {known}")
    if values in ((), _TRACE[name]):
        return
    if name == "trace_file":
        raise UnimplementedError("trace file location can not be updated through network protocol")
    raise UnimplementedError(
        f"trace setting '{name}' can not be changed, this server does not trace: "
        f"expected {', '.join(_TRACE[name])}, got {', '.join(values)}"
    )
