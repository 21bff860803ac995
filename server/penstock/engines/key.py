"""What a compiled engine (a TensorRT plan) depends on, and the key of that in a cache.

An engine is found again by everything that made it what it is, and by nothing else. Caches that
left something out have served wrong answers: other weights behind an equal graph, other shapes
behind an equal name. So the key is a digest over all of it, and a file's name or time is in none.

::

    recipe = EngineRecipe(
        model_sha256=file_sha256(Path("model.onnx")),
        library=Library("tensorrt", "11.1.0.106"),
        target=Target((9, 0), 132, "NVIDIA H200", driver_major=580),
        profiles=({"x": ShapeRange((1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224))},),
    )
    recipe.key()  # 64 hexadecimal digits
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError

# Raised whenever the meaning of a field changes: what was built before is then built again.
KEY_VERSION = 2
# Raised whenever other profiles are made of the same request: `profiles.make_profiles`.
ASKED_VERSION = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Engines are only good for the very build of the library: 11.1 would not be enough. Some packages
# have a number of their own ("10.14.1.48.post1", "10.6.0.post1"), which says nothing of the library
# in it, and is in the key all the same: to build once more is better than to leave a cause out.
_FULL_VERSION = re.compile(r"\d+\.\d+\.\d+(\.\d+)?(\.post\d+)?")


def file_sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Library:
    """The library that builds, and alone can run, an engine."""

    flavour: str  # "tensorrt", "tensorrt_rtx"
    version: str  # in full: "11.1.0.106"


@dataclass(frozen=True)
class Target:
    """The device that an engine is tuned for. A slice of a GPU (MIG) has fewer multiprocessors."""

    compute_capability: tuple[int, int]
    multiprocessors: int
    device: str  # as the driver names it
    driver_major: int


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of an input that a profile is for: least, most likely, greatest."""

    least: tuple[int, ...]
    likely: tuple[int, ...]
    greatest: tuple[int, ...]

    def is_ordered(self) -> bool:
        """Whether least <= likely <= greatest, in each of as many dimensions."""
        if not len(self.least) == len(self.likely) == len(self.greatest):
            return False
        dims = zip(self.least, self.likely, self.greatest, strict=True)
        return all(0 <= low <= middle <= high for low, middle, high in dims)


@dataclass(frozen=True)
class EngineRecipe:
    """All that an engine depends on. `key` is equal for two recipes only if they are."""

    model_sha256: str
    library: Library
    target: Target | None  # None: built for no device in particular, where the library can
    # Weights in files of their own: as the model names them, to their digests.
    external_sha256: Mapping[str, str] = field(default_factory=dict)
    # By input; their order is their number, which a context is made with.
    profiles: tuple[Mapping[str, ShapeRange], ...] = ()
    builder_flags: frozenset[str] = frozenset()
    workspace_bytes: int = 0  # 0: what the library takes by itself

    def faults(self) -> list[str]:
        """What is wrong with it, each with what was expected and what came."""
        return [*self._digest_faults(), *self._library_faults(), *self._profile_faults()]

    def key(self) -> str:
        """The SHA-256 of the recipe, in hexadecimal: the engine's name in a cache.

        Raises:
            ConfigError: with all of `faults`, if there are any.
        """
        if faults := self.faults():
            raise ConfigError(faults)
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def asked_key(
        self,
        buckets: Sequence[int],
        ranges: Mapping[str, ShapeRange],
        open_batch: Mapping[str, Any] | None = None,
    ) -> str:
        """The SHA-256 of what is asked for, in hexadecimal: it needs no network to be read.

        Of the same file and library the same request makes the same profiles; so engines of equal
        `asked_key` have equal keys, where not the other way round.

        Args:
            buckets: that profiles are made of, in place of the recipe's own.
            ranges: likewise.
            open_batch: what decides the buckets in their place, where that is the network.

        Raises:
            ConfigError: as `key`, or a range is not in order.
        """
        bare = replace(self, profiles=())
        faults = [f for n in ranges for f in _order_faults(f"shape of input '{n}'", ranges[n])]
        if faults := [*bare.faults(), *faults]:
            raise ConfigError(faults)
        asked = {
            "asked_version": ASKED_VERSION,
            "recipe": bare.key(),
            "buckets": list(buckets),
            "ranges": _shapes(ranges),
        }
        if open_batch is not None:
            asked["open_batch"] = open_batch
        return hashlib.sha256(_canonical(asked).encode()).hexdigest()

    def canonical(self) -> str:
        """The recipe as JSON that is the same wherever it is made: what `key` digests."""
        return _canonical(self._as_dict())

    def _as_dict(self) -> dict[str, Any]:
        """Every field, with sets in order. Mappings are ordered by `canonical`."""
        target = self.target
        return {
            "key_version": KEY_VERSION,
            "model_sha256": self.model_sha256,
            "external_sha256": dict(self.external_sha256),
            "library": [self.library.flavour, self.library.version],
            "target": target
            and [
                list(target.compute_capability),
                target.multiprocessors,
                target.device,
                target.driver_major,
            ],
            "profiles": [_shapes(profile) for profile in self.profiles],
            "builder_flags": sorted(self.builder_flags),
            "workspace_bytes": self.workspace_bytes,
        }

    def _digest_faults(self) -> Iterator[str]:
        digests = {"the model": self.model_sha256}
        digests |= {f"external data '{name}'": d for name, d in self.external_sha256.items()}
        for what, digest in digests.items():
            if not _SHA256.fullmatch(digest):
                yield f"digest of {what}: expected 64 hexadecimal digits, got '{digest}'"

    def _library_faults(self) -> Iterator[str]:
        if not _FULL_VERSION.fullmatch(self.library.version):
            yield (
                f"version of {self.library.flavour}: expected it in full, such as 11.1.0.106, "
                f"got '{self.library.version}'"
            )
        if self.workspace_bytes < 0:
            yield f"workspace: expected 0 bytes or more, got {self.workspace_bytes}"

    def _profile_faults(self) -> Iterator[str]:
        for i, profile in enumerate(self.profiles):
            for name, shapes in profile.items():
                yield from _order_faults(f"profile {i}, input '{name}'", shapes)
            if i > 0 and profile.keys() != self.profiles[0].keys():
                yield (
                    f"profile {i}: expected the inputs of profile 0, {sorted(self.profiles[0])}, "
                    f"got {sorted(profile)}"
                )


def _order_faults(what: str, shapes: ShapeRange) -> Iterator[str]:
    if not shapes.is_ordered():
        yield (
            f"{what}: expected least <= likely <= greatest in each dimension, "
            f"got {shapes.least}, {shapes.likely}, {shapes.greatest}"
        )


def _shapes(shapes: Mapping[str, ShapeRange]) -> dict[str, list[tuple[int, ...]]]:
    return {name: [each.least, each.likely, each.greatest] for name, each in shapes.items()}


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
