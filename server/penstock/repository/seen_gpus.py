"""The GPUs of models that name none: those that the server sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.codec import ModelConfig
from penstock.errors import CoreError, core_error
from penstock.repository.completion import leaves_gpus_open, with_gpus
from penstock.repository.own_parameters import most_instances
from penstock.repository.settings import DeviceCounting


def on_seen_gpus(config: ModelConfig, gpus: DeviceCounting | None) -> ModelConfig:
    """The configuration with the GPUs that it leaves open. Blocking: while they are counted.

    Args:
        config: with names; the rest as written.
        gpus: counts them; None: what is left open stays so.

    Raises:
        CoreError: how many there are is not known.
    """
    if gpus is None or not leaves_gpus_open(config):
        return config
    return with_gpus(config, gpus.count())


@contextmanager
def telling_of_gpus(written: ModelConfig, config: ModelConfig) -> Iterator[None]:
    """A failure inside says why the model is on several GPUs, where it named none itself.

    Args:
        written: with names; the rest as written.
        config: as `on_seen_gpus` made it, or completed from that.
    """
    try:
        yield
    except CoreError as error:
        if not leaves_gpus_open(written) or leaves_gpus_open(config):
            raise
        count = max(len(group.gpus) for group in config.instance_groups)
        which = "all" if most_instances(written) is None else "the first"
        message = f"{error.message} (it names no gpus: {which} {count} that are seen are used)"
        retry_ms = -1 if error.retry_after_ms is None else error.retry_after_ms
        raise core_error(error.code, message, retry_ms) from error
