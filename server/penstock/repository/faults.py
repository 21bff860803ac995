"""A list of faults that is filled from several checks, so that all are reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from penstock.errors import ConfigError


class Faults:
    """Faults found so far.

    Threading: confined to one thread.
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, source: str, faults: Iterable[str]) -> None:
        """Adds faults of one source (a file's name)."""
        self._found += [f"{source}: {fault}" for fault in faults]

    def add_full(self, faults: Iterable[str]) -> None:
        """Adds faults that tell their source themselves."""
        self._found += faults

    @contextmanager
    def collect(self, source: str) -> Iterator[None]:
        """Keeps the faults of a ConfigError raised inside, and goes on after the block."""
        try:
            yield
        except ConfigError as error:
            self.add(source, error.faults)

    def raise_if_any(self) -> None:
        """Raises ConfigError with everything found."""
        if self._found:
            raise ConfigError(self._found)
