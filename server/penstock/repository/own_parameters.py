"""The `parameters` of a model's configuration that are the server's own. Pure functions.

| key | what |
|---|---|
| `instances_min`, `instances_max` | how many instances of a version there may be while it serves |
| `memory_bytes` | what the model takes of the memory budget, in place of what is measured |
| `memory_pinned` | `true`: it is loaded from the start on, and never unloaded for another model |
| `operations_per_inference` | what a row costs in multiplications and additions; for metrics |
| `peak_operations_per_second` | what its devices reach together in its precision; likewise |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.codec import ModelConfig

__all__ = [
    "MAX_INSTANCES",
    "InstanceBounds",
    "has_instance_bounds",
    "instance_bounds",
    "instance_count",
    "is_pinned",
    "least_faults",
    "memory_bytes",
    "most_instances",
    "operations_per_inference",
    "own_faults",
    "peak_operations_per_second",
    "without_own",
]

MAX_INSTANCES = 1024

_MIN, _MAX, _MEMORY, _PINNED = "instances_min", "instances_max", "memory_bytes", "memory_pinned"
_OPERATIONS = "operations_per_inference"
_PEAK = "peak_operations_per_second"
_OWN = frozenset({_MIN, _MAX, _MEMORY, _PINNED, _OPERATIONS, _PEAK})
_BOOLS = {"true": True, "false": False}
_MOST_BYTES = 1 << 50
_MOST_OPERATIONS = 10**18


@dataclass(frozen=True, slots=True)
class InstanceBounds:
    """How many instances of a version there may be."""

    least: int
    most: int


def has_instance_bounds(parameters: Mapping[str, str]) -> bool:
    """Whether `instance_bounds` finds some."""
    return bool({_MIN, _MAX} & parameters.keys())


def instance_bounds(config: ModelConfig) -> InstanceBounds | None:
    """None: as many as the configuration says, for good. REQUIRES: a configuration without faults.

    The bound that is not written is the number that the configuration says, of all GPUs together,
    or 1 for the least.
    """
    if not has_instance_bounds(config.parameters):
        return None
    least = int(config.parameters.get(_MIN, 1))
    written = most_instances(config)
    return InstanceBounds(least, max(instance_count(config), least) if written is None else written)


def most_instances(config: ModelConfig) -> int | None:
    """The upper bound that is written; None: none is."""
    text = config.parameters.get(_MAX)
    return None if text is None else int(text)


def instance_count(config: ModelConfig) -> int:
    """How many instances a version begins with: `count` on each of the GPUs of its groups.

    One where no count is written, as `completion` has it of models with bounds.
    """
    groups = config.instance_groups
    return sum(max(group.count, 1) * max(len(group.gpus), 1) for group in groups) or 1


def memory_bytes(config: ModelConfig) -> int | None:
    """What the model is declared to take; None: it is to be measured."""
    text = config.parameters.get(_MEMORY)
    return None if text is None else int(text)


def is_pinned(config: ModelConfig) -> bool:
    """Whether the model stays loaded, whatever the memory budget."""
    return _BOOLS[config.parameters.get(_PINNED, "false")]


def operations_per_inference(config: ModelConfig) -> int | None:
    """What a row is declared to cost; None: nobody has counted it."""
    text = config.parameters.get(_OPERATIONS)
    return None if text is None else int(text)


def peak_operations_per_second(config: ModelConfig) -> int | None:
    """What its devices are declared to reach; None: the server's settings may say."""
    text = config.parameters.get(_PEAK)
    return None if text is None else int(text)


def without_own(parameters: Mapping[str, str]) -> dict[str, str]:
    """Those that are for the backend."""
    return {key: value for key, value in parameters.items() if key not in _OWN}


def own_faults(config: ModelConfig) -> Iterator[str]:
    """What is wrong with them, whatever GPUs there are: `least_faults` has the rest."""
    parameters = config.parameters
    faults = [
        *_bound_faults(parameters),
        *_number_faults(parameters, _MEMORY, 0, _MOST_BYTES),
        *_number_faults(parameters, _OPERATIONS, 1, _MOST_OPERATIONS),
        *_number_faults(parameters, _PEAK, 1, _MOST_OPERATIONS),
    ]
    if parameters.get(_PINNED, "false") not in _BOOLS:
        faults.append(
            f"parameters['{_PINNED}']: expected true or false, got '{parameters[_PINNED]}'"
        )
    yield from faults
    bounds = None if faults else instance_bounds(config)
    if bounds is not None and bounds.most < max(bounds.least, instance_count(config)):
        yield _outside(config, bounds)


def least_faults(config: ModelConfig) -> Iterator[str]:
    """Fewer instances than instances_min, where it leaves no GPUs open: more would have more."""
    bounds = None if any(_bound_faults(config.parameters)) else instance_bounds(config)
    if bounds is not None and instance_count(config) < bounds.least <= bounds.most:
        yield _outside(config, bounds)


def _outside(config: ModelConfig, bounds: InstanceBounds) -> str:
    return (
        f"parameters['{_MAX}']: expected {_MIN} <= instance_group.count, on all of its gpus "
        f"together, <= {_MAX}, got {bounds.least}, {instance_count(config)}, {bounds.most}"
    )


def _bound_faults(parameters: Mapping[str, str]) -> Iterator[str]:
    yield from _number_faults(parameters, _MIN, 1, MAX_INSTANCES)
    yield from _number_faults(parameters, _MAX, 1, MAX_INSTANCES)


def _number_faults(parameters: Mapping[str, str], key: str, least: int, most: int) -> Iterator[str]:
    text = parameters.get(key)
    if text is None:
        return
    if not (text.isascii() and text.isdigit() and least <= int(text[:19]) <= most):
        yield f"parameters['{key}']: expected a whole number from {least} to {most}, got '{text}'"
