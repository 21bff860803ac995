"""Wires the store to what loads models: inspects what is pushed, with a core of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.codec import ModelConfig
from penstock.config import ServerConfig
from penstock.errors import ConfigError, CoreError, FailedPreconditionError
from penstock.repository.core_engine import CoreEngine
from penstock.repository.loader import ModelLoader
from penstock.repository.serving import tensor_metadata
from penstock.wiring import make_core, repository_settings

if TYPE_CHECKING:
    from penstock.store.pushing import Inspection

__all__ = ["inspect_model", "signature_of"]


def inspect_model(name: str, repository: Path, config: ServerConfig | None = None) -> Inspection:
    """Opens version 1 of a model and tells its interface. Makes no instance.

    Of a Python model the code is run, as far as it completes the configuration.

    Blocking: for as long as the model's file takes to open.

    Raises:
        RefusedError: it would not load; every fault.
    """
    from penstock.store.failures import RefusedError
    from penstock.store.pushing import Inspection

    config = config or ServerConfig(model_repository=(repository,))
    core = make_core(config)
    try:
        loader = ModelLoader(CoreEngine(core), repository_settings(config))
        plan = loader.plan(name, only=1)
        try:
            completed = loader.open_version(plan, 1).config
        except FailedPreconditionError as error:  # the environment of its requirements
            return Inspection(plan.config.backend, note=error.message)
        return Inspection(completed.backend, signature_of(completed))
    except ConfigError as error:
        raise RefusedError(*(f"'{name}' would not load: {each}" for each in error.faults)) from None
    except CoreError as error:
        raise RefusedError(f"'{name}' would not load: {error.message}") from None
    finally:
        core.engine.shutdown()


def signature_of(config: ModelConfig) -> dict[str, Any]:
    """The interface of a completed configuration, as `penstock.store.signature` has it."""
    optional = {tensor.name for tensor in config.inputs if tensor.optional}
    inputs, outputs = tensor_metadata(config, "input"), tensor_metadata(config, "output")
    return {
        "inputs": [
            {
                "name": each.name,
                "datatype": each.datatype,
                "shape": list(each.shape),
                "optional": each.name in optional,
            }
            for each in inputs
        ],
        "outputs": [
            {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
            for each in outputs
        ],
        "max_batch_size": config.max_batch_size or 0,
        "decoupled": bool(config.decoupled),
    }
