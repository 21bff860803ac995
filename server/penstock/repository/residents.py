"""Residents: what of the memory budget is taken, by whom, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.repository.catalog import ServedVersion

__all__ = ["Resident", "Residents", "Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """That a model is loaded, of a client, an operator, or a directory; requests have none.

    Attributes:
        since: how many loads were done then: what others wished and got since stays,
        is_firm: even where it leaves no room; else it goes then, to be loaded on demand again.
    """

    since: int
    is_firm: bool = False


@dataclass(eq=False, slots=True)
class Resident:
    """What one load takes, until the last of its versions is freed.

    Attributes:
        name: of the model.
        size_bytes: all that it takes, further instances among it.
        is_pinned: it is not unloaded for others.
        is_declared: its configuration says what it takes: nothing is measured.
        since_s: when it was loaded, monotonic.
        since_unix_s: the same by the calendar.
        versions: that are not freed yet.
        number: of the load, where it was wished; -1: requests waited for it.
        instances: bytes of those that were added while it served, the latest last.
        instance_bytes: what one more is taken to need.
        leaving_bytes: of those that were removed and are not freed yet.
    """

    name: str
    size_bytes: int
    is_pinned: bool
    is_declared: bool
    since_s: float
    since_unix_s: float
    versions: list[ServedVersion]
    number: int = -1
    instances: list[int] = field(default_factory=list)
    instance_bytes: int = 0
    leaving_bytes: int = 0

    def has(self, version: ServedVersion) -> bool:
        """Whether it is one of those that are not freed yet."""
        return any(each is version for each in self.versions)

    def add_instance(self, size_bytes: int) -> None:
        """One more instance takes so much."""
        self.instances.append(size_bytes)
        self.instance_bytes = size_bytes
        self.size_bytes += size_bytes

    def remove_instance(self, *, is_freed: bool) -> int:
        """The latest instance leaves; returns the bytes that are free now.

        One that is not freed in time is freed with the next.
        """
        self.leaving_bytes += self.instances.pop() if self.instances else 0
        if not is_freed:
            return 0
        freed, self.leaving_bytes = self.leaving_bytes, 0
        self.size_bytes -= freed
        return freed


class Residents:
    """All of them.

    Threading: confined to the event loop.
    """

    def __init__(self) -> None:
        self.all: list[Resident] = []
        self.freed_bytes = 0
        """Of all that have gone so far: who measures meanwhile has to know."""

    def of(self, version: ServedVersion) -> Resident | None:
        """Whose version it is; None: nobody's, or it is freed."""
        return next((each for each in self.all if each.has(version)), None)

    def total(self) -> int:
        """Bytes that are taken."""
        return sum(each.size_bytes for each in self.all)

    def pinned(self, but: str) -> int:
        """Bytes that no model can be given, but for one of this name."""
        return sum(each.size_bytes for each in self.all if each.is_pinned and each.name != but)

    def by_model(self) -> dict[str, int]:
        """Bytes by name."""
        sizes: dict[str, int] = {}
        for each in self.all:
            sizes[each.name] = sizes.get(each.name, 0) + each.size_bytes
        return sizes

    def unpin(self, versions: Sequence[ServedVersion]) -> None:
        """These serve no more: their memory will be free, pinned or not."""
        for each in self.all:
            if any(each.has(version) for version in versions):
                each.is_pinned = False

    def free(self, version: ServedVersion) -> None:
        """A version is no more; with the last one its resident goes."""
        resident = self.of(version)
        if resident is None:
            return
        resident.versions = [each for each in resident.versions if each is not version]
        if not resident.versions:
            self.all.remove(resident)
            self.freed_bytes += resident.size_bytes

    def remove_instance(self, version: ServedVersion, *, is_freed: bool) -> None:
        """An instance of the version leaves."""
        resident = self.of(version)
        if resident is not None:
            self.freed_bytes += resident.remove_instance(is_freed=is_freed)
