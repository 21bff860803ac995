"""One setting of the server: what it means, what it may be, and how its text is read.

`penstock.config` declares the settings with this; the command line makes flags and environment
variables from it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

from penstock.errors import ConfigError

__all__ = [
    "Setting",
    "SettingField",
    "describe",
    "field_faults",
    "fields_of",
    "item_fault",
    "parse_size",
    "read_texts",
    "read_value",
    "setting",
]

T = TypeVar("T")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What the command line needs to know about a field.

    Attributes:
        help: one sentence; the default is added by whoever prints it.
        unit: of the number, "" when it has none.
        flags: further spellings of the flag, such as Triton's where it differs from ours.
        minimum: smallest value; None = no bound.
        maximum: greatest value; None = no bound.
        separator: between the values of a repeated field in an environment variable.
        group: heading in the help.
    """

    help: str
    unit: str = ""
    flags: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    separator: str = ","
    group: str = "Server"


def setting(default: Any, help_text: str, **details: Any) -> Any:
    """A field of a dataclass of settings; `details` are of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help_text, **details)})


@dataclass(frozen=True, slots=True)
class SettingField:
    """A field of ServerConfig with everything that is generated from it.

    Attributes:
        name: of the field.
        type: its value's type: bool, int, float, str or Path.
        repeated: the field is a tuple of `type`, given once per value.
        choices: the allowed strings; empty = any.
        default: its value when nobody sets it.
        setting: help, unit, bounds.
    """

    name: str
    type: type
    repeated: bool
    choices: tuple[str, ...]
    default: Any
    setting: Setting

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable; Setting.separator stands between values of a repeated one."""
        return "PENSTOCK_" + self.name.upper()


def describe(field: dataclasses.Field[Any], hint: Any) -> SettingField:
    """A dataclass field with a `Setting` in its metadata, and its type hint."""
    repeated = typing.get_origin(hint) is tuple
    item = typing.get_args(hint)[0] if repeated else hint
    choices = typing.get_args(item) if typing.get_origin(item) is Literal else ()
    return SettingField(
        name=field.name,
        type=str if choices else item,
        repeated=repeated,
        choices=choices,
        default=field.default,
        setting=field.metadata["setting"],
    )


def fields_of(settings: Any) -> tuple[SettingField, ...]:
    """The fields of a dataclass of settings, in their order."""
    return _described(settings)


@cache
def _described(settings: Any) -> tuple[SettingField, ...]:
    hints = typing.get_type_hints(settings)
    return tuple(describe(each, hints[each.name]) for each in dataclasses.fields(settings))


def field_faults(settings: object) -> Iterator[str]:
    """Every value of the settings that is not allowed, with its flag."""
    for field in fields_of(type(settings)):
        value = getattr(settings, field.name)
        for item in value if field.repeated else [value]:
            fault = item_fault(field, item)
            if fault:
                yield f"{field.flag}: {fault}"


def read_texts(settings: type[T], texts: Mapping[str, str | Iterable[str]]) -> T:
    """Settings from strings, such as environment variables hold.

    Args:
        settings: a dataclass of settings that checks itself.
        texts: by field name; a repeated field takes several, or one with separators in it.

    Raises:
        ConfigError: every string that is no value, and every value that is not allowed.
    """
    known = {field.name: field for field in fields_of(settings)}
    faults = [f"{name}: no such setting" for name in texts if name not in known]
    values = {}
    for name in known.keys() & texts.keys():
        try:
            values[name] = read_value(known[name], texts[name])
        except ValueError as error:
            faults.append(f"{known[name].flag}: {error}")
    try:
        made = settings(**values)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    return made


def item_fault(field: SettingField, value: object) -> str | None:
    """Why one value is not allowed; None where it is."""
    accepts = (int, float) if field.type is float else field.type
    if not isinstance(value, accepts) or (field.type is not bool and isinstance(value, bool)):
        return f"expected {field.type.__name__}, got {value!r}"
    if field.choices and value not in field.choices:
        return f"expected one of {', '.join(field.choices)}, got {value!r}"
    if not isinstance(value, int | float):
        return None
    setting, unit = field.setting, f" {field.setting.unit}" if field.setting.unit else ""
    if setting.minimum is not None and not value >= setting.minimum:
        return f"expected at least {setting.minimum}{unit}, got {value}"
    if setting.maximum is not None and not value <= setting.maximum:
        return f"expected at most {setting.maximum}{unit}, got {value}"
    return None


def read_value(field: SettingField, text: str | Iterable[str]) -> Any:
    """The value that a text, or several of a repeated field, stands for.

    Raises:
        ValueError: it stands for none.
    """
    if field.repeated:
        parts = text.split(field.setting.separator) if isinstance(text, str) else text
        return tuple(field.type(part) for part in parts if part)
    if not isinstance(text, str):
        raise ValueError("may be given once only")
    if field.type is bool:
        return _bool(text)
    try:
        return field.type(text)
    except ValueError:
        raise ValueError(f"expected {field.type.__name__}, got {text!r}") from None


def _bool(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"expected true or false, got {text!r}")


def parse_size(text: str) -> int | None:
    """Bytes as people write them, such as "512M": K, M, G and T are of 1024. None: no size."""
    factor = _UNITS.get(text[-1:].upper(), 1)
    digits = text if factor == 1 else text[:-1]
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 18
    return int(digits) * factor if is_number else None
