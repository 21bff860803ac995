"""Functions and the logger of `triton_python_backend_utils`."""

from __future__ import annotations

import os
import sys
from typing import Any

from penstock.worker.pb_messages import InferenceRequest, InferenceResponse
from penstock.worker.pb_tensor import Tensor


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of a request; None where it has none of the name."""
    return _by_name(inference_request.inputs(), name)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of a response; None where it has none of the name."""
    return _by_name(inference_response.output_tensors(), name)


def _by_name(tensors: list[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of an input; None where there is none of the name."""
    return _config_by_name(model_config, "input", name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of an output; None where there is none of the name."""
    return _config_by_name(model_config, "output", name)


def _config_by_name(config: dict[str, Any], kind: str, name: str) -> dict[str, Any] | None:
    tensors: list[dict[str, Any]] = config.get(kind, [])
    return next((tensor for tensor in tensors if tensor["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Whether the model is decoupled."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def get_model_dir() -> str:
    """The directory of the model's file."""
    return os.path.dirname(os.path.abspath(sys.modules["model"].__file__ or ""))


class Logger:
    """Writes lines to the server's log, at their level, under the model's name."""

    INFO = 6
    WARNING = 4
    ERROR = 3
    VERBOSE = 7

    @staticmethod
    def log(message: str, level: int = INFO) -> None:
        """A line of any level."""
        for line in str(message).splitlines() or [""]:
            sys.stderr.write(f"<{level}>{line}\n")
        sys.stderr.flush()

    @staticmethod
    def log_info(message: str) -> None:
        """A line of information."""
        Logger.log(message, Logger.INFO)

    @staticmethod
    def log_warn(message: str) -> None:
        """A warning."""
        Logger.log(message, Logger.WARNING)

    @staticmethod
    def log_error(message: str) -> None:
        """An error."""
        Logger.log(message, Logger.ERROR)

    @staticmethod
    def log_verbose(message: str) -> None:
        """A line that is written with --log-level debug only."""
        Logger.log(message, Logger.VERBOSE)
