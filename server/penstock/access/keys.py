"""The file of API keys: who has one, by its SHA-256, and what it allows.

::

    {"keys": [{"name": "team-a", "sha256": "9f86d0...", "groups": ["inference", "metadata"],
               "requests_per_second": 100, "burst": 200, "max_request_bytes": 1048576}]}

The last three may be left out. The group "all" stands for all of them. `penstock make-key` makes
such an entry. A key must be random and long: a digest protects no word that can be guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.access_settings import GROUPS
from penstock.core import Principal
from penstock.errors import ConfigError

__all__ = ["ALL_GROUPS", "read_keys"]

ALL_GROUPS = "all"

_FIELDS: dict[str, Any] = {
    "name": str,
    "sha256": str,
    "groups": list,
    "requests_per_second": int | float,
    "burst": int,
    "max_request_bytes": int,
}
_REQUIRED = ("name", "sha256", "groups")
_MAX_NUMBER = 2**31 - 1
_MAX_FILE_BYTES = 64 * 1024 * 1024


def read_keys(
    path: Path, *, per_second: float = 0.0, burst: int = 1
) -> list[tuple[bytes, Principal]]:
    """Digests and whose they are.

    Blocking: reads the file.

    Args:
        path: of the file.
        per_second: rate of keys whose entry has none; 0 = unlimited.
        burst: of keys whose entry has none.

    Raises:
        ConfigError: the file cannot be read, or every fault in it.
    """
    entries = _entries(path)
    faults = [fault for at, entry in enumerate(entries) for fault in _entry_faults(at, entry)]
    if not faults:
        faults += _duplicates(entries)
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    defaults = {"requests_per_second": per_second, "burst": burst}
    return [_principal({**defaults, **entry}) for entry in entries]


def _entries(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError([f"{path}: larger than {_MAX_FILE_BYTES} bytes"])
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError([f"{path}: cannot read it: {error.strerror}"]) from None
    except (ValueError, RecursionError):  # their texts may quote a key
        raise ConfigError([f"{path}: it is not JSON"]) from None
    if not isinstance(document, dict) or set(document) != {"keys"}:
        raise ConfigError([f'{path}: expected an object with one member, "keys"'])
    if not isinstance(document["keys"], list):
        raise ConfigError([f'{path}: expected "keys" to be a list'])
    return document["keys"]


def _entry_faults(at: int, entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"keys[{at}]: expected an object"
        return
    yield from (f"keys[{at}]: '{name}' is missing" for name in _REQUIRED if name not in entry)
    for name, value in entry.items():
        fault = _field_fault(name, value)
        if fault:
            yield f"keys[{at}]: {fault}"


def _field_fault(name: str, value: Any) -> str | None:
    if name not in _FIELDS:
        return f"'{name[:64]}' is no field of a key; those are {', '.join(_FIELDS)}"
    if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
        return f"'{name}' is of the wrong type"
    if name == "name" and not (value and value.isprintable() and len(value) <= 128):
        return "'name' is 1 to 128 printable characters"
    if name == "sha256" and not _is_digest(value):
        return "'sha256' is 64 hexadecimal digits: the digest of the key, never the key"
    if name == "groups":
        unknown = [each for each in value if each not in (*GROUPS, ALL_GROUPS)]
        if unknown or not value:
            return f"'groups' is a list of {ALL_GROUPS}, {', '.join(GROUPS)}"
    if name == "burst" and not 1 <= value <= _MAX_NUMBER:
        return f"'burst' is 1 to {_MAX_NUMBER}"
    if isinstance(value, int | float) and not 0 <= value <= _MAX_NUMBER:
        return f"'{name}' is 0 to {_MAX_NUMBER}"
    return None


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(each in "0123456789abcdefABCDEF" for each in text)


def _duplicates(entries: list[Any]) -> Iterator[str]:
    for field in ("name", "sha256"):
        seen: set[str] = set()
        for at, entry in enumerate(entries):
            value = entry[field].lower() if field == "sha256" else entry[field]
            if value in seen:
                yield f"keys[{at}]: its '{field}' is that of another key"
            seen.add(value)


def _principal(entry: Mapping[str, Any]) -> tuple[bytes, Principal]:
    groups = GROUPS if ALL_GROUPS in entry["groups"] else tuple(entry["groups"])
    principal = Principal(
        name=f"key '{entry['name']}'",
        groups=groups,
        per_second=entry["requests_per_second"],
        burst=entry["burst"],
        max_request_bytes=entry.get("max_request_bytes", 0),
    )
    return bytes.fromhex(entry["sha256"]), principal
