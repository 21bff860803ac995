"""What backends are told of this machine: where their engines lie. Nothing is opened."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from penstock.config import ServerConfig

__all__ = ["engine_builder", "engine_directory", "engine_options"]

_ENGINE_LIBRARIES = {"onnxruntime": "capi", "openvino": "libs"}
"""Wheels of engines, named as their backends, and where in them their libraries lie."""
_GPU_WHEEL = "onnxruntime-gpu"
"""Its files go where those of `onnxruntime` are: where pip installed both, both libraries lie."""
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
        library = _wheel_library(backend, folder)
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


def _wheel_library(backend: str, folder: str) -> Path | None:
    """The directory that a wheel has its library in, or the library: two wheels may have theirs."""
    places = [package / folder for package in _package_directories(backend)]
    directory = next((each for each in places if each.is_dir()), next(iter(places), None))
    if directory is None or backend != "onnxruntime":
        return directory
    return _gpu_library(directory) or directory


def _gpu_library(directory: Path) -> Path | None:
    """That of the wheel for GPUs, whatever version of the wheel without lies beside it."""
    try:
        files = importlib.metadata.files(_GPU_WHEEL) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [directory / each.name for each in files if each.name.startswith("libonnxruntime.so")]
    return next((each for each in found if each.is_file()), None)


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
