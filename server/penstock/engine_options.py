"""What backends are told of this machine: where their engines lie. Nothing is opened."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from penstock.config import ServerConfig

__all__ = ["engine_builder", "engine_directory", "engine_options"]

_ENGINE_LIBRARIES = {"onnxruntime": "capi", "openvino": "libs"}
"""Wheels of engines, named as their backends, and where in them their libraries lie."""
_TENSORRT_PACKAGES = ("tensorrt_libs", "tensorrt_lean_libs")
"""Those that hold TensorRT's runtime: in full, and for version-compatible plans only."""
_CUDA_PACKAGES = ("nvidia", "tensorrt_libs")
"""Those that hold what ONNX Runtime's providers of GPUs are linked with, in folders `lib`."""
_BUILDER = "builder"
"""An option of tensorrt that is the server's own: what builds engines of ONNX at a load."""
_ORT_ROOT = "ONNXRUNTIME_ROOT"
"""Of the environment: an unpacked archive of ONNX Runtime, in place of the wheel's."""
_WORKER = Path(__file__).parent / "worker" / "__main__.py"
"""What the workers of Python models are started with."""


def engine_options(config: ServerConfig) -> dict[str, dict[str, str]]:
    """By backend: what --backend-config says, and what is found where it says nothing."""
    options = config.backend_options()
    root = os.environ.get(_ORT_ROOT)
    if root:
        options.setdefault("onnxruntime", {}).setdefault("library", str(Path(root) / "lib"))
    for backend, folder in _ENGINE_LIBRARIES.items():
        places = [package / folder for package in _package_directories(backend)]
        library = next((each for each in places if each.is_dir()), next(iter(places), None))
        if library is not None:
            options.setdefault(backend, {}).setdefault("library", str(library))
    onnxruntime = options.setdefault("onnxruntime", {})
    onnxruntime.setdefault("cuda_libraries", ":".join(map(str, _cuda_directories())))
    onnxruntime.setdefault("engine_cache", str(engine_directory(config)))
    found = [each for package in _TENSORRT_PACKAGES for each in _package_directories(package)]
    tensorrt = options.setdefault("tensorrt", {})
    tensorrt.setdefault("search", ":".join(map(str, found)))
    tensorrt.pop(_BUILDER, None)
    python = options.setdefault("python", {})
    python.setdefault("interpreter", sys.executable)
    python.setdefault("runtime", str(_WORKER))
    return options


def engine_builder(config: ServerConfig) -> str:
    """The Python package that builds engines when a model is loaded; "" = not said."""
    return config.backend_options().get("tensorrt", {}).get(_BUILDER, "")


def engine_directory(config: ServerConfig) -> Path:
    """Where engines that are built of models are kept: by default in the user's cache."""
    if config.engine_cache:
        return Path(config.engine_cache)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "penstock" / "engines"


def _cuda_directories() -> list[Path]:
    """`nvidia/cu13/lib`, `nvidia/cudnn/lib` and their like, and `tensorrt_libs` itself."""
    found: list[Path] = []
    for package in _CUDA_PACKAGES:
        for directory in _package_directories(package):
            found += [directory, *sorted(directory.glob("*/lib"))]
    return found


def _package_directories(package: str) -> list[Path]:
    """Where a wheel lies. It is found and not imported: engines are heavy.

    A namespace, as `nvidia` is, lies in several places where its wheels do: in the system's
    packages and in an environment's.
    """
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec is not None else None
    return [Path(each) for each in locations or ()]
