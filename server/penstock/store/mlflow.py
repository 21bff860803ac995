"""Reads the directory that MLflow writes for a model, without MLflow and without opening the model.

`MLmodel` is YAML: what it names is looked at as text, and only flavors are taken whose files hold
no code that opening them would run.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from penstock.store.capture import scrubbed
from penstock.store.failures import RefusedError
from penstock.store.manifest import path_fault
from penstock.store.records import Link

__all__ = ["MLMODEL", "MlflowModel", "plain_text", "read_mlflow", "read_yaml"]

MLMODEL = "MLmodel"
_MAX_BYTES = 1 << 20
_MAX_TEXT = 64 << 10
_FLAVORS = {"onnx": "data", "tensorflow": "saved_model_dir"}
"""Those that can be served, and the field that names the model in the directory."""
_FACTS = ("mlflow_version", "model_uuid", "model_id", "utc_time_created", "model_size_bytes")


@dataclass(frozen=True, slots=True)
class MlflowModel:
    """What MLmodel says.

    Attributes:
        flavor: onnx or tensorflow.
        model_path: of the model's file or directory, relative.
        facts: of MLflow, as plain values.
        links: the training run.
    """

    flavor: str
    model_path: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[Link, ...] = ()


class _PlainLoader(yaml.SafeLoader):
    """YAML without merge keys, which let a small file grow to any size."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses them, where others write them out."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys are not taken")


def read_mlflow(directory: Path) -> MlflowModel:
    """Reads MLmodel.

    Raises:
        RefusedError: it is no MLmodel, or none of its flavors can be served.
    """
    path = directory / MLMODEL
    content = read_yaml(path)
    flavors = content.get("flavors")
    if not isinstance(flavors, dict):
        raise RefusedError(f"'{path}' has no flavors")
    for flavor, key in _FLAVORS.items():
        details = flavors.get(flavor)
        if isinstance(details, dict):
            return _model(path, content, flavor, plain_text(details.get(key)))
    named = ", ".join(sorted(str(each) for each in flavors))
    raise RefusedError(
        f"'{path}' has the flavors {named}: none of them can be served without unpickling; log the "
        f"model as {' or '.join(f'mlflow.{each}' for each in _FLAVORS)}"
    )


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A small file of YAML that MLflow wrote; empty where it holds no mapping.

    Raises:
        RefusedError: it is too large, or no plain YAML.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise RefusedError(f"'{path}' has more than {_MAX_BYTES} bytes")
    try:
        content = yaml.load(path.read_bytes(), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RefusedError(f"'{path}' is not YAML: {reason}") from None
    return content if isinstance(content, dict) else {}


def _model(path: Path, content: Mapping[str, Any], flavor: str, model_path: str) -> MlflowModel:
    fault = path_fault(model_path)
    if fault:
        raise RefusedError(f"'{path}': the model of flavor {flavor}: {fault}")
    facts: dict[str, Any] = {
        key: plain_text(content.get(key)) for key in _FACTS if content.get(key)
    }
    signature = content.get("signature")
    if isinstance(signature, dict):
        facts["signature"] = {
            plain_text(key): plain_text(value) for key, value in signature.items()
        }
    run = plain_text(content.get("run_id"))[:255]
    details = {"source": "mlflow", "artifact_path": plain_text(content.get("artifact_path"))}
    links = (Link("run", run, details=details),) if run else ()
    return MlflowModel(flavor, model_path, facts, links)


def plain_text(value: Any) -> str:
    """A plain value as text; "" for anything else.

    YAML's aliases let a small file hold a tree that is endless when it is written out.
    """
    is_plain = isinstance(value, str | int | float | datetime.date)
    return scrubbed(str(value)).replace("\0", "")[:_MAX_TEXT] if is_plain else ""
