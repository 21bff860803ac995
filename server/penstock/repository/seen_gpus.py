"""The GPUs of models that name none: those that the server sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from penstock.codec import ModelConfig
from penstock.errors import ConfigError, CoreError, core_error
from penstock.repository.completion import is_open, leaves_gpus_open, with_gpus
from penstock.repository.own_parameters import least_faults
from penstock.repository.settings import DeviceCounting
from penstock.repository.validation import instance_faults


class OnSeenGpus(NamedTuple):
    """A configuration with the GPUs that it left open.

    `why`: it is on several, where it named none itself, in words; "" where it is not.
    """

    config: ModelConfig
    why: str = ""


def count_faults(config: ModelConfig) -> Iterator[str]:
    """Too few instances; () where GPUs that nobody counted yet may make them more.

    Args:
        config: with names; the rest as written.
    """
    if not leaves_gpus_open(config):
        yield from least_faults(config)


def on_seen_gpus(config: ModelConfig, gpus: DeviceCounting | None, source: str) -> OnSeenGpus:
    """Fills in the GPUs that a configuration leaves open. Blocking: while they are counted.

    Args:
        config: with names; the rest as written.
        gpus: counts them; None: what is left open stays so.
        source: what to call the configuration in faults.

    Raises:
        ConfigError: these are too few for its instances, or too many.
        CoreError: how many there are is not known.
    """
    on = OnSeenGpus(config)
    if gpus is not None and leaves_gpus_open(config):
        seen = gpus.count()
        if seen == 0:
            return on  # its backend says what it lacks
        completed = with_gpus(config, seen)
        on = OnSeenGpus(completed, _why(config, completed, seen))
    if faults := [*instance_faults(on.config), *least_faults(on.config)]:
        raise ConfigError([f"{source}: {fault}{on.why}" for fault in faults])
    return on


def _why(written: ModelConfig, config: ModelConfig, seen: int) -> str:
    if leaves_gpus_open(config):
        return ""
    groups = zip(written.instance_groups, config.instance_groups, strict=True)
    used = next(len(on.gpus) for group, on in groups if is_open(group))
    which = "all" if used == seen else "the first"
    return f" (it names no gpus: {which} {used} that are seen are used)"


@contextmanager
def telling_of_gpus(why: str) -> Iterator[None]:
    """A failure inside says `why` the model is on several GPUs, as `on_seen_gpus` has it."""
    try:
        yield
    except CoreError as error:
        if not why:
            raise
        message = f"{error.message}{why}"
        retry_ms = -1 if error.retry_after_ms is None else error.retry_after_ms
        raise core_error(error.code, message, retry_ms) from error
