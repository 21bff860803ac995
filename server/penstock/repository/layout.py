"""Model directories on disk: where they are, what is in them, and that nothing leads out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from penstock.errors import (
    ConfigError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    StartupError,
)
from penstock.repository.policy import version_number

CONFIG_FILENAME = "config.pbtxt"
_SAVED_MODEL = "saved_model.pb"
"""What a directory holds that is itself a model: TensorFlow's SavedModel."""
MAX_TEXT_BYTES = 16 << 20
"""Of a configuration or a label file; larger ones are refused."""
MAX_NAME_BYTES = 255
"""Of a file or a directory, as Linux has it."""


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A model in a repository. `versions` are those found, ascending."""

    name: str
    repository: Path
    path: Path
    versions: tuple[int, ...]

    def version_path(self, version: int) -> Path:
        """The directory of a version."""
        return self.path / str(version)


def list_models(repositories: Iterable[Path]) -> list[str]:
    """Names of the model directories, sorted.

    Hidden ones are not models, nor are those whose name is not UTF-8: no client can ask for them.

    Raises:
        StartupError: a repository cannot be read.
    """
    names: set[str] = set()
    for repository in repositories:
        try:
            with os.scandir(repository) as entries:
                names.update(e.name for e in entries if _is_model_name(e.name) and _is_directory(e))
        except OSError as error:
            raise StartupError(
                f"cannot read model repository '{repository}': {error.strerror}"
            ) from error
    return sorted(names)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        if entry.is_symlink():  # to nowhere that can be reached: a fault of the link alone
            return False
        raise


def repositories_of(repositories: Iterable[Path], name: str) -> list[Path]:
    """Those of the repositories that have a model of this name, at least one.

    Raises:
        InternalError: there is none (in the text that Triton's clients know), or no telling.
    """
    try:
        found = [path for path in repositories if _is_model_name(name) and (path / name).is_dir()]
    except OSError as error:
        raise InternalError(
            f"failed to load '{name}', a model repository cannot be read: {error.strerror}"
        ) from error
    if not found:
        raise InternalError(f"failed to load '{name}', failed to poll from model repository")
    return found


def find_model(repositories: Iterable[Path], name: str) -> ModelDirectory:
    """The directory of a model.

    Raises:
        InternalError: no repository has it, or it cannot be read.
        InvalidArgumentError: more than one has it.
    """
    found = repositories_of(repositories, name)
    if len(found) > 1:
        raise InvalidArgumentError(
            f"failed to load '{name}', the model is in {len(found)} repositories, expected one"
        )
    path = found[0] / name
    numbers = (version_number(entry.name) for entry in _entries(name, path) if entry.is_dir())
    versions = sorted(number for number in numbers if number is not None)
    return ModelDirectory(name, found[0], path, tuple(versions))


def _entries(name: str, path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise InternalError(
            f"failed to load '{name}', directory '{path.name}' cannot be read: {error.strerror}"
        ) from error


def _is_model_name(name: str) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return False
    is_name = 0 < size <= MAX_NAME_BYTES and not set(name) & {"/", "\0"}
    return is_name and not name.startswith(".")


def read_config_file(model: ModelDirectory) -> str | None:
    """The text of the model's config.pbtxt; None where there is none.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    if not os.path.lexists(model.path / CONFIG_FILENAME):
        return None
    return read_text(model, CONFIG_FILENAME, CONFIG_FILENAME)


def read_text(model: ModelDirectory, filename: str, field: str) -> str:
    """A text file of the model's directory.

    Args:
        model: whose.
        filename: relative to the directory.
        field: what named the file, for faults.

    Raises:
        ConfigError: it leads out of the repository, cannot be read, is too large or not UTF-8.
    """
    path = inside(model, model.path, filename, field)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{field}: cannot read '{filename}': {error.strerror}"]) from error
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError([f"{field}: '{filename}' has more than {MAX_TEXT_BYTES} bytes"])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError([f"{field}: '{filename}' is not UTF-8 in line {line}"]) from error


def read_labels(model: ModelDirectory, filename: str, field: str) -> tuple[str, ...]:
    """The lines of a label file, as `read_text` reads it; an empty line is an empty label."""
    text = read_text(model, filename, field).removesuffix("\n")
    return tuple(line.removesuffix("\r") for line in text.split("\n"))


def escapes(filename: str) -> bool:
    """Whether a name that a configuration gives is absolute or climbs up."""
    path = PurePosixPath(filename)
    return path.is_absolute() or ".." in path.parts or "\0" in filename


def inside(model: ModelDirectory, base: Path, filename: str, field: str) -> Path:
    """A path below `base` that, with symbolic links followed, stays in the model's repository.

    Links within a repository are how one file serves several models; a link out of it would let a
    model directory read any file of the machine. A pipe or a device would never end being read.

    Raises:
        ConfigError: it does not stay inside, or is neither a file nor a directory.
    """
    if escapes(filename):
        raise ConfigError([f"{field}: '{filename}' leads out of the model's directory"])
    path = base / filename
    try:
        resolved = path.resolve()
        is_inside = resolved.is_relative_to(model.repository.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise ConfigError([f"{field}: '{filename}' cannot be followed to a file"]) from error
    if not is_inside:
        raise ConfigError([f"{field}: '{filename}' is a link that leads out of the repository"])
    if resolved.exists() and not (resolved.is_file() or resolved.is_dir()):
        raise ConfigError([f"{field}: '{filename}' is neither a file nor a directory"])
    return path


def version_files(model: ModelDirectory) -> list[str]:
    """Names of what lies in the version directories."""
    paths = (model.version_path(version) for version in model.versions)
    return sorted({entry.name for path in paths for entry in _entries(model.name, path)})


def plan_or_onnx(model: ModelDirectory, version: int, filename: str) -> str:
    """What a backend of plans is given: the file of that name, or else the ONNX file of its."""
    path = model.version_path(version) / filename
    onnx = PurePosixPath(filename).with_suffix(".onnx")
    is_only_onnx = not path.exists() and (model.version_path(version) / onnx).exists()
    return str(onnx) if filename and is_only_onnx else filename


def model_file(model: ModelDirectory, version: int, filename: str) -> Path:
    """The model file of a version, or the version's directory where `filename` is empty.

    A directory called like the file holds it under the same name (ONNX with external data), or is
    itself the model (TensorFlow's SavedModel).

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it leads out of the repository.
    """
    base = model.version_path(version)
    path = inside(model, base, filename, "default_model_filename") if filename else base
    if filename and path.is_dir() and not (path / _SAVED_MODEL).exists():
        path = inside(model, path, PurePosixPath(filename).name, "default_model_filename")
    if not path.exists():
        raise NotFoundError(f"version {version} has no file '{filename}'")
    return path
