"""What the store raises.

::

    StoreError               the store cannot do what was asked; `.lines`, one fault each
    ├── RefusedError         what was asked is not allowed, or its arguments are wrong
    ├── UnknownEntryError    no such model, version, alias or environment
    ├── CorruptError         bytes are not those that the store took
    ├── NoRoomError          a disk or a cache of this machine is full; others may have room
    └── StoreUnavailableError  the database or the artifacts cannot be reached; may pass
"""

from __future__ import annotations

from penstock.errors import PenstockError

__all__ = [
    "CorruptError",
    "NoRoomError",
    "RefusedError",
    "StoreError",
    "StoreUnavailableError",
    "UnknownEntryError",
]


class StoreError(PenstockError):
    """The store cannot do what was asked.

    Attributes:
        lines: what to tell, one fault per line.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class RefusedError(StoreError):
    """What was asked is not allowed, or its arguments are wrong."""


class UnknownEntryError(StoreError):
    """There is no such model, version, alias or environment."""


class CorruptError(StoreError):
    """Bytes are not those that the store took."""


class NoRoomError(StoreError):
    """A disk or a cache of this machine is full; others may have room, and it may pass."""


class StoreUnavailableError(StoreError):
    """The database or the artifacts cannot be reached; it may pass by itself."""
