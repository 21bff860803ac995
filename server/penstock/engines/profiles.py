"""Optimisation profiles: which shapes an engine is built for, from how its model is batched.

An engine runs shapes within its profiles only, and is fastest at a profile's likely shape. So there
is one for each bucket of batch sizes, and its greatest batch is its likely one: that is what a full
batch has, and what smaller ones are padded to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.codec import ModelConfig
from penstock.engines.key import ShapeRange
from penstock.errors import ConfigError

_GROWTH = 4
"""Between buckets that nobody chose: few enough to build, and no batch is padded more than so."""


@dataclass(frozen=True)
class NetworkInput:
    """An input as the model's file declares it: shape with -1 for what is open, batch included."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_open(self) -> bool:
        """Whether a profile has to say what it is."""
        return -1 in self.shape


@dataclass(frozen=True)
class OpenBatch:
    """How a model is batched whose configuration does not say: as the server will complete it.

    A plan is served by its own shapes, so what decides is the network: see `repository.completion`.

    Attributes:
        rows: of a batch at most, where the network has a batch dimension.
        preferred: batch sizes.
        listed: inputs and outputs that the configuration lists, with how many dims; 0 = not said.
    """

    rows: int
    preferred: tuple[int, ...] = ()
    listed: Mapping[str, int] = field(default_factory=dict)

    def buckets(
        self, inputs: Sequence[NetworkInput], outputs: Mapping[str, tuple[int, ...]]
    ) -> tuple[int, ...]:
        """The batch sizes that profiles end at; () where the network has no batch dimension.

        Args:
            inputs: of the network.
            outputs: of the network, by name; where some are listed the others are not served.
        """
        listed = {name: shape for name, shape in outputs.items() if name in self.listed}
        shapes = {each.name: each.shape for each in inputs} | (listed or dict(outputs))
        is_open = all(shape[:1] == (-1,) for shape in shapes.values())
        is_in_full = any(self.listed.get(name) == len(shape) for name, shape in shapes.items())
        return default_buckets(self.rows, self.preferred) if is_open and not is_in_full else ()


def batching_of(config: ModelConfig, rows: int) -> tuple[tuple[int, ...], OpenBatch | None]:
    """The buckets that a configuration asks for, or what decides them where it does not say.

    Args:
        config: as written.
        rows: the server's own max_batch_size, where there is none and the model can batch.
    """
    preferred = config.dynamic_batching.preferred_batch_sizes if config.dynamic_batching else ()
    if config.max_batch_size is not None:
        return default_buckets(config.max_batch_size, preferred), None
    listed = {
        each.name: len(each.dims if each.reshape is None else each.reshape) if each.dims else 0
        for each in config.inputs + config.outputs
    }
    return (), OpenBatch(rows, tuple(preferred), listed)


def default_buckets(max_batch_size: int, preferred: Sequence[int] = ()) -> tuple[int, ...]:
    """The batch sizes that profiles end at: one row, those preferred, the most there may be.

    Where none is preferred, every fourth power of two between. () where the model does not batch.
    """
    if max_batch_size < 1:
        return ()
    between = list(preferred)
    size = _GROWTH
    while not preferred and size < max_batch_size:
        between.append(size)
        size *= _GROWTH
    return tuple(sorted({1, *(n for n in between if n <= max_batch_size), max_batch_size}))


def parse_range(text: str) -> tuple[str, ShapeRange]:
    """An input's name and its shapes, of "NAME=1x16:4x128:8x512" (least, likely, greatest).

    One shape alone stands for all three.

    Raises:
        ConfigError: it is not written so, or the shapes do not follow on one another.
    """
    name, equals, shapes = text.partition("=")
    if not name or not equals:
        raise ConfigError(
            [f"shape: expected NAME=LEAST:LIKELY:GREATEST, as x=1x8:4x8:8x8, got '{text}'"]
        )
    try:
        return name, parse_shapes(shapes)
    except ConfigError as error:
        raise ConfigError([f"shape of input '{name}': {error.faults[0]}"]) from error


def parse_shapes(text: str) -> ShapeRange:
    """The shapes of "1x16:4x128:8x512", as `parse_range`."""
    try:
        parsed = [tuple(int(size) for size in part.split("x")) for part in text.split(":")]
    except ValueError:
        parsed = []
    if len(parsed) not in (1, 3):
        raise ConfigError([f"expected LEAST:LIKELY:GREATEST, as 1x8:4x8:8x8, got '{text}'"])
    shapes = ShapeRange(parsed[0], parsed[len(parsed) // 2], parsed[-1])
    if not shapes.is_ordered():
        raise ConfigError([f"expected least <= likely <= greatest in each dimension, got '{text}'"])
    return shapes


def make_profiles(
    inputs: Sequence[NetworkInput],
    buckets: Sequence[int],
    ranges: Mapping[str, ShapeRange],
) -> tuple[dict[str, ShapeRange], ...]:
    """The profiles of a network, one for each bucket; none where every shape is fixed.

    Args:
        inputs: of the network.
        buckets: batch sizes, ascending; () where the first dimension is like any other.
        ranges: what open inputs are, by name, without the batch dimension where there are buckets.

    Raises:
        ConfigError: an input is open and nothing says how far; a range does not fit its input.
    """
    if faults := list(_faults(inputs, buckets, ranges)):
        raise ConfigError(faults)
    if not any(each.is_open for each in inputs):
        return ()
    if not buckets:
        return ({each.name: ranges.get(each.name) or _fixed(each) for each in inputs},)
    least = (1, *(size + 1 for size in buckets))
    return tuple(
        {each.name: _batched(each, low, high, ranges.get(each.name)) for each in inputs}
        for low, high in zip(least, buckets, strict=False)
    )


def _fixed(given: NetworkInput) -> ShapeRange:
    return ShapeRange(given.shape, given.shape, given.shape)


def _batched(given: NetworkInput, low: int, high: int, rest: ShapeRange | None) -> ShapeRange:
    if given.shape[:1] != (-1,):  # it has no batch dimension, or a fixed one
        return rest or _fixed(given)
    row = rest or ShapeRange(given.shape[1:], given.shape[1:], given.shape[1:])
    return ShapeRange((low, *row.least), (high, *row.likely), (high, *row.greatest))


def _faults(
    inputs: Sequence[NetworkInput], buckets: Sequence[int], ranges: Mapping[str, ShapeRange]
) -> Iterator[str]:
    names = [each.name for each in inputs]
    for name in ranges:
        if name not in names:
            yield f"shape of input '{name}': the model has no such input, expected one of {names}"
    if buckets and not any(each.shape[:1] == (-1,) for each in inputs):
        yield (
            f"batches of up to {buckets[-1]}: no input has an open first dimension, got "
            + ", ".join(f"'{each.name}' {list(each.shape)}" for each in inputs)
        )
    for each in inputs:
        yield from _input_faults(each, bool(buckets), ranges.get(each.name))


def _input_faults(
    given: NetworkInput, is_batched: bool, chosen: ShapeRange | None
) -> Iterator[str]:
    shape = given.shape[1:] if is_batched and given.shape[:1] == (-1,) else given.shape
    if chosen is None:
        if -1 in shape:
            yield (
                f"input '{given.name}': its shape {list(given.shape)} is open, and nothing says "
                f"how far: --shape {given.name}=LEAST:LIKELY:GREATEST, as {_example(shape)}"
                + _about_batch(given, is_batched)
            )
        return
    for what, sizes in (("least", chosen.least), ("greatest", chosen.greatest)):
        fits = len(sizes) == len(shape) and all(
            want in (-1, size) for want, size in zip(shape, sizes, strict=True)
        )
        if not fits:
            yield (
                f"input '{given.name}': the {what} shape does not fit, expected {list(shape)}, "
                f"got {list(sizes)}" + _about_batch(given, is_batched)
            )


def _example(shape: Sequence[int]) -> str:
    """How a range of such a shape is written."""
    return ":".join("x".join(str(n if n >= 0 else size) for n in shape) for size in (1, 4, 8))


def _about_batch(given: NetworkInput, is_batched: bool) -> str:
    """What a shape says of the first dimension, where that is open."""
    if given.shape[:1] != (-1,):
        return ""
    if is_batched:
        return (
            ", without the first dimension, which is the batch's: max_batch_size says how far, "
            "0 that it is none"
        )
    return "; or, where the first dimension is the batch's, write max_batch_size in config.pbtxt"
