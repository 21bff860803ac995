"""Packages: what is pushed, brought into the one form that artifacts have.

::

    config.pbtxt, requirements.lock, labels, warmup/     as in a model's directory
    version/                                             as in the directory of a version

What PATH may be: a model file; a directory that holds one; a model's directory with numbered
versions, as in a repository; a directory that MLflow wrote. Nothing in it is run or unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from penstock.store.failures import RefusedError
from penstock.store.files import SourceFile, list_files, open_source
from penstock.store.mlflow import MLMODEL, read_mlflow
from penstock.store.records import Link

__all__ = ["VERSION", "Package", "make_package"]

VERSION = "version"
"""The directory of an artifact that becomes the one of the version's number."""
CONFIG = "config.pbtxt"
LOCK = "requirements.lock"
_TOP = {CONFIG, LOCK}
_WARMUP = "warmup"
_SAVED_MODEL = "saved_model.pb"
_DEFAULTS = ("model.onnx", "model.xml", "model.py")
"""Names that a configuration need not tell."""
_SINGLE = (".onnx", ".tflite", ".pb", ".pdmodel")
_CODE = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bst"}
_REQUIREMENTS = (LOCK, "requirements.txt")
_MAX_TEXT_BYTES = 4 << 20
_MAX_REQUIREMENTS = 2000
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Package:
    """What an artifact is made of, and what its source says of itself.

    Attributes:
        source_format: file, directory, triton or mlflow.
        requirements: lines of what a Python model needs.
        runtime: facts by the name of the format.
        links: what it says that it was made of.
    """

    files: tuple[SourceFile, ...]
    source_format: str
    requirements: tuple[str, ...] = ()
    runtime: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    def source(self, path: str) -> Path | bytes | None:
        """Where a file of the artifact is from."""
        return next((each.source for each in self.files if each.path == path), None)


def make_package(path: Path, from_version: int | None = None) -> Package:
    """Finds out what a path is.

    Args:
        path: what to push.
        from_version: of a directory with several versions; None = the latest.

    Raises:
        RefusedError: it is nothing that can be served, or has links or special files in it.
        StoreUnavailableError: it cannot be read.
    """
    if path.is_symlink():
        raise RefusedError(f"'{path}' is a symbolic link: name what it leads to")
    if path.is_file():
        return Package(_of_file(path), "file")
    if not path.is_dir():
        raise RefusedError(f"'{path}' is neither a file nor a directory")
    names = [each for each in list_files(path) if not _is_rubbish(each)]
    if MLMODEL in names:
        return _of_mlflow(path, names)
    versions = sorted({int(n.partition("/")[0]) for n in names if _in_version(n)})
    if versions:
        return _of_model_directory(path, names, versions, from_version)
    if from_version is not None:
        raise RefusedError(f"'{path}' has no version {from_version}")
    return Package(_of_directory(path, names), "directory", _requirements(path, names))


def _is_rubbish(name: str) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))


def _in_version(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and _NUMBER.fullmatch(first) is not None


def _of_file(path: Path) -> tuple[SourceFile, ...]:
    suffix = path.suffix.lower()
    if suffix == ".xml":
        weights = path.with_suffix(".bin")
        if not weights.is_file() or weights.is_symlink():
            raise RefusedError(f"'{path.name}' needs its weights beside it: '{weights.name}'")
        return (
            SourceFile(f"{VERSION}/model.xml", path),
            SourceFile(f"{VERSION}/model.bin", weights),
        )
    if f"model{suffix}" in _DEFAULTS:
        return (SourceFile(f"{VERSION}/model{suffix}", path),)
    if suffix in _SINGLE:
        return (_config(path.name), SourceFile(f"{VERSION}/{path.name}", path))
    if suffix in _CODE:
        raise RefusedError(
            f"'{path.name}' is a pickle, or may be one: those are never opened, since opening one "
            "runs what is in it; export the model to ONNX"
        )
    known = ", ".join([".onnx", ".xml", ".py", *_SINGLE[1:]])
    raise RefusedError(f"'{path.name}' is no model file that can be served: expected {known}")


def _config(filename: str) -> SourceFile:
    escaped = filename.replace("\\", "\\\\").replace('"', '\\"')
    return SourceFile(CONFIG, f'default_model_filename: "{escaped}"\n'.encode())


def _of_directory(path: Path, names: Sequence[str]) -> tuple[SourceFile, ...]:
    """A directory that is one version: all but what belongs beside versions goes below."""
    if _SAVED_MODEL in names and CONFIG not in names:
        below = "model.saved_model"
        inside = [SourceFile(f"{VERSION}/{below}/{name}", path / name) for name in names]
        return (_config(below), *inside)
    files = [
        SourceFile(name if _is_top(name) else f"{VERSION}/{name}", path / name) for name in names
    ]
    if CONFIG not in names and not set(_DEFAULTS) & set(names):
        single = [n for n in names if "/" not in n and Path(n).suffix.lower() in _SINGLE]
        if len(single) != 1:
            raise RefusedError(
                f"'{path}' holds no model that can be served: expected {', '.join(_DEFAULTS)}, "
                f"{_SAVED_MODEL}, {CONFIG}, {MLMODEL} or one file of {', '.join(_SINGLE)}"
            )
        files.insert(0, _config(single[0]))
    return tuple(files)


def _is_top(name: str) -> bool:
    return name in _TOP or name.startswith(f"{_WARMUP}/")


def _of_model_directory(
    path: Path, names: Sequence[str], versions: Sequence[int], from_version: int | None
) -> Package:
    chosen = max(versions) if from_version is None else from_version
    if chosen not in versions:
        known = ", ".join(map(str, versions))
        raise RefusedError(f"'{path}' has no version {chosen}, it has {known}")
    prefix = f"{chosen}/"
    files = [
        SourceFile(f"{VERSION}/{name.removeprefix(prefix)}", path / name)
        if name.startswith(prefix)
        else SourceFile(name, path / name)
        for name in names
        if name.startswith(prefix) or not _in_version(name)
    ]
    return Package(tuple(files), "triton", _requirements(path, names))


def _of_mlflow(path: Path, names: Sequence[str]) -> Package:
    found = read_mlflow(path)
    parts = [n for n in names if n == found.model_path or n.startswith(f"{found.model_path}/")]
    if not parts:
        raise RefusedError(f"'{path}': {MLMODEL} names '{found.model_path}', which is not there")
    if found.flavor == "onnx":
        target = f"{VERSION}/model.onnx"
        beside = str(Path(found.model_path).parent)
        parts = [*dict.fromkeys([*parts, *_external(path, names, found.model_path)])]
        files = [
            SourceFile(
                target
                if name == found.model_path
                else f"{VERSION}/{Path(name).relative_to(beside).as_posix()}",
                path / name,
            )
            for name in parts
        ]
    else:
        below = f"{VERSION}/model.saved_model"
        files = [
            SourceFile(
                f"{below}/{Path(name).relative_to(found.model_path).as_posix()}", path / name
            )
            for name in parts
        ]
        files.append(_config("model.saved_model"))
    files.append(SourceFile(MLMODEL, path / MLMODEL))
    return Package(
        tuple(files),
        "mlflow",
        _requirements(path, names),
        {"mlflow": found.facts},
        found.links,
    )


def _external(path: Path, names: Sequence[str], model_path: str) -> list[str]:
    """Files below the model's directory that its bytes name: its weights, where they lie outside.

    A name that only looks like it costs room, one that was left out would cost the model.
    """
    place = Path(model_path).parent
    prefix = "" if place == Path() else f"{place.as_posix()}/"
    beside = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    model = path / model_path
    if not model.is_file() or not model.stat().st_size:
        return []
    with open_source(model) as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return [
            name
            for below, name in beside.items()
            if name not in (model_path, MLMODEL) and content.find(below.encode()) >= 0
        ]


def _requirements(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Lines of the first list of requirements that is there, without comments."""
    for name in _REQUIREMENTS:
        if name in names and (path / name).stat().st_size <= _MAX_TEXT_BYTES:
            text = (path / name).read_text(errors="replace")
            lines = (line.strip().rstrip("\\").strip() for line in text.splitlines())
            kept = [line for line in lines if line and not line.startswith(("#", "--hash"))]
            return tuple(kept[:_MAX_REQUIREMENTS])
    return ()
