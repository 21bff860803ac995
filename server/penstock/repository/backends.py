"""Names of backends: Triton's platforms, the plug-ins that exist, and default model files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from penstock.codec import InstanceGroup, ModelConfig
from penstock.errors import ConfigError

PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}
"""Triton's older way to name a backend, with the framework's format."""

DEFAULT_FILENAMES = {
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "python": "model.py",
    "tensorrt": "model.plan",
}
"""What a version directory holds; a backend that is not here is given the directory itself."""

SAFE_PARAMETERS = frozenset({"onnxruntime", "openvino"})
"""Backends whose parameters name no file and load no code, so that a load request may set them."""

RUN_CODE = frozenset({"python"})
"""Backends whose models are code that is told its configuration."""

ON_GPUS = frozenset({"tensorrt"})
"""Backends whose models run on GPUs, and on nothing else."""

ALSO_ON_GPUS = frozenset({"onnxruntime"})
"""Backends whose models run on CPUs, or on GPUs where their instance groups say so."""

LANES_ON_GPU = {"onnxruntime": 1, "tensorrt": 2}
"""Lanes of a model on a GPU where its parameter `lanes` says nothing: the backends' defaults."""
_SLOTS_OF_A_LANE = 2  # one batch is copied while another computes

PLANS_OF_ONNX = "tensorrt"
"""The backend that ONNX files are compiled for, where they are given to it."""

INTERPRETER = "PENSTOCK_INTERPRETER"
"""The parameter that tells such a backend which interpreter a model's own environment has."""

_BY_SUFFIX = {
    ".onnx": "onnxruntime",
    ".pb": "openvino",
    ".pdmodel": "openvino",
    ".plan": "tensorrt",
    ".saved_model": "openvino",
    ".tflite": "openvino",
    ".xml": "openvino",
}
_PLUGIN = re.compile(r"libpenstock_([A-Za-z0-9_]+)\.so")
_NAME = re.compile(r"[A-Za-z0-9_]+")


def find_backends(directories: Iterable[Path]) -> list[str]:
    """Names of the plug-ins in the directories; one that cannot be read holds none."""
    found: set[str] = set()
    for directory in directories:
        if directory.is_dir():
            matches = (_PLUGIN.fullmatch(path.name) for path in directory.iterdir())
            found.update(match.group(1) for match in matches if match)
    return sorted(found)


def platform_of(backend: str) -> str:
    """The platform that clients are told; a backend without one is its own."""
    return next((name for name, each in PLATFORMS.items() if each == backend), backend)


def choose_backend(
    config: ModelConfig, version_files: Iterable[str], available: Sequence[str]
) -> str:
    """The backend of a model, by its configuration or else by its files.

    Args:
        config: may name a backend, a platform, both if they agree, or neither.
        version_files: names of the files in the version directories.
        available: plug-ins that exist; empty = not known, anything may.

    Raises:
        ConfigError: it names one that does not exist, or nothing tells which to use.
    """
    backend = config.backend
    if config.platform:
        backend = _backend_of_platform(config.platform, config.backend)
    if not backend:
        backend = _backend_of_files([config.default_model_filename, *version_files])
    if not _NAME.fullmatch(backend):
        raise ConfigError([f"backend: '{backend}' is not a name of letters, digits and _"])
    if available and backend not in available:
        found = ", ".join(available)
        raise ConfigError([f"backend: there is no backend '{backend}', expected one of {found}"])
    return backend


def unserved_plan(config: ModelConfig, backend: str, files: Mapping[int, Sequence[str]]) -> str:
    """What is to be told of a plan that lies beside ONNX which is served in its place; "" = none.

    Args:
        config: as written.
        backend: that was chosen.
        files: names of those of each version that is served.
    """
    is_said = config.backend or config.platform or config.default_model_filename
    if is_said or backend != "onnxruntime":
        return ""
    onnx, plan = DEFAULT_FILENAMES["onnxruntime"], DEFAULT_FILENAMES["tensorrt"]
    for version, names in files.items():
        if onnx in names and plan in names:
            return (
                f"version {version} has {onnx} and {plan}, and its configuration names neither "
                f"backend nor platform: {onnx} is served by onnxruntime, and {plan} is not "
                '(platform: "tensorrt_plan" has it served)'
            )
    return ""


def _backend_of_platform(platform: str, backend: str) -> str:
    implied = PLATFORMS.get(platform, platform if platform == backend else "")
    if not implied:
        known = ", ".join(sorted(PLATFORMS))
        raise ConfigError(
            [f"platform: '{platform}' is not supported, expected one of {known} or a backend"]
        )
    if backend and backend != implied:
        raise ConfigError(
            [f"backend: '{backend}' does not serve platform '{platform}', expected '{implied}'"]
        )
    return implied


def _backend_of_files(names: Iterable[str]) -> str:
    given = list(names)
    for name in given:
        if Path(name).suffix in _BY_SUFFIX and name:
            return _BY_SUFFIX[Path(name).suffix]
    if DEFAULT_FILENAMES["python"] in given:  # other Python files may lie beside any model
        return "python"
    raise ConfigError(
        [
            "backend: none is named and no version holds a model.onnx, model.xml or model.py "
            "that would tell which to use"
        ]
    )


def kind_of(group: InstanceGroup, backend: str) -> str:
    """What a group runs on: what it says; KIND_AUTO is what the backend runs on."""
    if group.kind != "KIND_AUTO":
        return group.kind
    on_gpu = backend in ON_GPUS or bool(group.gpus)
    return "KIND_GPU" if on_gpu else "KIND_CPU"


def slots_on_gpu(backend: str, parameters: Mapping[str, str]) -> int:
    """How many batches of a model may be under way on a GPU; 1 for backends of others.

    `lanes` that is no number from 1 to 4 is the backend's to refuse.
    """
    if backend not in LANES_ON_GPU:
        return 1
    written = parameters.get("lanes", "")
    lanes = int(written) if written in {"1", "2", "3", "4"} else LANES_ON_GPU[backend]
    return _SLOTS_OF_A_LANE * lanes
