"""LogControl: the log settings as clients see and change them, under Triton's names.

::

    log_file            ""         standard error; cannot be changed
    log_info            bool       whether lines of the level are written
    log_warning         bool
    log_error           bool
    log_verbose_level   uint32     debug lines are written unless it is 0
    log_format          "default"  as the server was started (--log-format)
                        "ISO8601"  text lines; their times are ISO 8601, as they are in JSON lines
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from penstock.errors import InvalidArgumentError, UnimplementedError
from penstock.observe.log import LogSettings

__all__ = ["LogControl", "LogValue"]

LogValue = bool | int | str

_KINDS: Mapping[str, tuple[type, str]] = {
    "log_file": (str, "string"),
    "log_info": (bool, "boolean"),
    "log_warning": (bool, "boolean"),
    "log_error": (bool, "boolean"),
    "log_verbose_level": (int, "uint32"),
    "log_format": (str, "string"),
}
_FORMATS = ("default", "ISO8601")


class LogControl:
    """The settings that are in force, and the way to others.

    Threading: confined to the event loop.
    """

    def __init__(self, settings: LogSettings, apply: Callable[[LogSettings], None]) -> None:
        """Applies nothing yet: `settings` are in force.

        Args:
            settings: as the server was started.
            apply: puts settings in force, everywhere.
        """
        self._settings = settings
        self._default_json = settings.json
        self._format = "default"
        self._apply = apply

    def values(self) -> dict[str, LogValue]:
        """Every setting by its name."""
        return {
            "log_file": "",
            "log_info": self._settings.info,
            "log_warning": self._settings.warning,
            "log_error": self._settings.error,
            "log_verbose_level": self._settings.verbose_level,
            "log_format": self._format,
        }

    def change(self, given: Mapping[str, LogValue | None]) -> None:
        """Puts the given settings in force: all of them, or none where one is wrong.

        Args:
            given: by name; None = a setting that came without a value.

        Raises:
            InvalidArgumentError: a name is unknown, or a value is not of its type or not allowed.
            UnimplementedError: the log's file is to be another.
        """
        for name, value in sorted(given.items()):
            _check(name, value)
        values = {**self.values(), **given}
        self._format = str(values["log_format"])
        self._settings = replace(
            self._settings,
            info=bool(values["log_info"]),
            warning=bool(values["log_warning"]),
            error=bool(values["log_error"]),
            verbose_level=int(values["log_verbose_level"] or 0),
            json=self._default_json and self._format == "default",
        )
        self._apply(self._settings)


def _check(name: str, value: LogValue | None) -> None:
    if name not in _KINDS:
        known = ", ".join(_KINDS)
        raise InvalidArgumentError(f"unknown log setting '{name}', expected one of {known}")
    kind, shown = _KINDS[name]
    if type(value) is not kind:  # a bool is an int to Python, not to the protocol
        got = "nothing" if value is None else dict(_KINDS.values())[type(value)]
        raise InvalidArgumentError(f"expect {shown} for '{name}', got {got}")
    if name == "log_file" and value != "":
        raise UnimplementedError("log file location can not be updated through network protocol")
    if name == "log_format" and value not in _FORMATS:
        raise InvalidArgumentError(
            f"invalid argument for log_format, got: {value}, expected {' or '.join(_FORMATS)}"
        )
