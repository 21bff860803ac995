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

_MODULE = "model"
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
    module = _import(start.path)
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


def _import(path: str) -> ModuleType:
    from penstock.worker import pb_utils

    sys.modules["triton_python_backend_utils"] = pb_utils
    sys.path[:0] = [os.path.dirname(path)]  # a model's own modules lie beside it
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise ModelFault(f"{os.path.basename(path)} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module
