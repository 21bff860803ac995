"""Imports a model's file and tells which kind of model it holds."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from penstock.worker.failure import ModelFault
from penstock.worker.model import Model

NATIVE_CLASS = "Model"
TRITON_CLASS = "TritonPythonModel"


@dataclass(frozen=True)
class Start:
    """The start document.

    Attributes:
        model_name: of the model.
        version: its number.
        path: of the model's file.
        model_directory: of the model, with its versions.
        config: the ModelConfig; max_batch_size is missing where nobody wrote one.
        parameters: of the configuration.
    """

    model_name: str
    version: int
    path: str
    model_directory: str
    config: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Start:
        """Reads the document."""
        config = json.loads(document["config"]) if document["config"] else {}
        return cls(
            document["model_name"],
            document["version"],
            document["path"],
            document["model_directory"],
            config,
            {name: value["string_value"] for name, value in config.get("parameters", {}).items()},
        )


def load_model(start: Start) -> Model:
    """Imports the file.

    Raises:
        ModelFault: the file holds no model, or one that says too little of itself.
        BaseException: what the file itself raised.
    """
    module = _import(start)
    native, triton = getattr(module, NATIVE_CLASS, None), getattr(module, TRITON_CLASS, None)
    if triton is not None:
        from penstock.worker.triton_model import TritonModel

        return TritonModel(triton, start)
    if native is not None:
        from penstock.worker.native import NativeModel

        return NativeModel(native, start)
    raise ModelFault(
        f"{os.path.basename(start.path)} defines neither a class {NATIVE_CLASS} nor a class "
        f"{TRITON_CLASS}"
    )


def _import(start: Start) -> ModuleType:
    """Imports the file as Triton does: as a module of a package that is its version's directory.

    What lies beside it may be imported with a dot or without one, and what lies in the model's
    directory without.
    """
    from penstock.worker import pb_utils

    directory, filename = os.path.split(start.path)
    sys.modules["triton_python_backend_utils"] = pb_utils
    sys.path[:0] = [directory]
    sys.path.append(start.model_directory)
    package = ModuleType(str(start.version))
    package.__path__ = [directory]
    name = f"{package.__name__}.{os.path.splitext(filename)[0]}"
    spec = importlib.util.spec_from_file_location(name, start.path)
    if spec is None or spec.loader is None:
        raise ModelFault(f"{filename} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[package.__name__] = package
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
