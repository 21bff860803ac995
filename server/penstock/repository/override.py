"""What a configuration that comes with a load request may not change.

It may decide how a model is served, never what code runs or which file is read: the backend, the
name of the model file, and the parameters of backends whose parameters could name a file stay those
of the repository. Custom operators are refused wherever they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from penstock.codec import ModelConfig
from penstock.errors import ConfigError
from penstock.repository.backends import DEFAULT_FILENAMES, SAFE_PARAMETERS, choose_backend


def restrict(
    given: ModelConfig, written: ModelConfig, backend: str
) -> tuple[ModelConfig, list[str]]:
    """The given configuration with the backend and the model file of the written one.

    Args:
        given: by the load request.
        written: in the repository; empty where it has no configuration.
        backend: of the written one.

    Returns:
        The configuration, and a fault for everything that the given one may not change.
    """
    filename = written.default_model_filename
    kept = replace(given, backend=backend, platform="", default_model_filename=filename)
    return kept, list(_faults(given, written, backend))


def _faults(given: ModelConfig, written: ModelConfig, backend: str) -> Iterator[str]:
    if given.backend or given.platform:
        try:
            chosen = choose_backend(given, (), ())
        except ConfigError as error:
            yield from error.faults
        else:
            if chosen != backend:
                yield (
                    "backend: a load request may not change the backend, "
                    f"expected '{backend}', got '{chosen}'"
                )
    filename = written.default_model_filename or DEFAULT_FILENAMES.get(backend, "")
    if given.default_model_filename not in ("", filename):
        yield (
            "default_model_filename: a load request may not change the model file, "
            f"expected '{filename}', got '{given.default_model_filename}'"
        )
    if backend not in SAFE_PARAMETERS and dict(given.parameters) != dict(written.parameters):
        yield (
            "parameters: a load request may not change the parameters of a model of "
            f"backend '{backend}'"
        )
