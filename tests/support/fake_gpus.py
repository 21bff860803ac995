"""A DeviceCounting that says what it is told."""

from __future__ import annotations

from penstock.errors import CoreError


class FakeGpus:
    """Has so many GPUs, or does not know. `asked`: how often it was."""

    def __init__(self, seen: int | CoreError) -> None:
        self.seen = seen
        self.asked = 0
        self.is_closed = False

    def count(self) -> int:
        self.asked += 1
        if isinstance(self.seen, CoreError):
            raise self.seen
        return self.seen

    def close(self) -> None:
        self.is_closed = True
