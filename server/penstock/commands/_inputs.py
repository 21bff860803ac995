"""From files on the command line to the arrays of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.commands._failure import CommandError
from penstock.commands._files import IMAGE_SUFFIXES, Contents, Loaded, read_file
from penstock.commands._fit import fit
from penstock.commands._images import read_image
from penstock.commands._interface import InputInterface, ModelInterface

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How files become inputs.

    Attributes:
        scale: what pixels of images are multiplied with.
        may_round: whether arrays may be rounded to a smaller floating-point type.
    """

    scale: float = 1.0
    may_round: bool = False


def gather(
    files: Sequence[Path],
    named: Sequence[tuple[str, Path]],
    model: ModelInterface,
    options: InputOptions,
) -> dict[str, Array]:
    """Reads all files and makes them fit the model.

    Args:
        files: files that say themselves which inputs they hold, or hold the model's only one.
        named: files for one input each. Several files for one input add their rows up.
        model: the model's interface.
        options: how to read.

    Returns:
        Arrays by input name; all of the same number of rows when the model batches.

    Raises:
        CommandError: a file cannot be read or does not fit, or an input is missing.
    """
    pieces: dict[str, list[Array]] = {}
    for name, path in named:
        target = _known(name, model, path)
        loaded = _read_one(path, target, model, options)
        pieces.setdefault(name, []).append(
            fit(loaded, target, model.name, may_round=options.may_round)
        )
    for path in files:
        for name, loaded in _read_any(path, model, options).items():
            target = _known(name, model, path)
            pieces.setdefault(name, []).append(
                fit(loaded, target, model.name, may_round=options.may_round)
            )
    return _checked({name: _joined(name, parts, model) for name, parts in pieces.items()}, model)


def _known(name: str, model: ModelInterface, path: Path) -> InputInterface:
    target = model.input(name)
    if target is None:
        raise CommandError(
            f"model '{model.name}' has no input '{name}' (of {path}), only {model.input_names()}"
        )
    return target


def _read_one(
    path: Path, target: InputInterface, model: ModelInterface, options: InputOptions
) -> Loaded:
    """The values for one input; of a file with several arrays, the one of its name."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image(path, target, options.scale)
    alone = ModelInterface(model.name, (target,), model.outputs, model.max_batch_size)
    contents = read_file(path, alone)
    if isinstance(contents, Loaded):
        return contents
    if target.name in contents:
        return contents[target.name]
    if len(contents) == 1:
        return next(iter(contents.values()))
    raise CommandError(f"{path} holds no array '{target.name}', only {_quoted(contents)}")


def _read_any(path: Path, model: ModelInterface, options: InputOptions) -> dict[str, Loaded]:
    sole = model.inputs[0] if len(model.inputs) == 1 else None
    contents: Contents
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if sole is None:
            raise CommandError(_ambiguous(path, model))
        return {sole.name: read_image(path, sole, options.scale)}
    contents = read_file(path, model)
    if not isinstance(contents, Loaded):
        return contents
    if sole is None:
        raise CommandError(_ambiguous(path, model))
    return {sole.name: contents}


def _ambiguous(path: Path, model: ModelInterface) -> str:
    return (
        f"model '{model.name}' has {len(model.inputs)} inputs ({model.input_names()}): "
        f"say which one {path} is for with --input NAME={path}"
    )


def _joined(name: str, parts: list[Array], model: ModelInterface) -> Array:
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    if model.max_batch_size == 0:
        raise CommandError(
            f"input '{name}' of model '{model.name}' got {len(parts)} files, "
            "but the model does not batch"
        )
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(list(part.shape[1:])) for part in parts[:4])
        raise CommandError(
            f"input '{name}' of model '{model.name}': rows of different shapes cannot be sent "
            f"together: {shapes}"
        )
    return np.concatenate(parts)


def _checked(inputs: dict[str, Array], model: ModelInterface) -> dict[str, Array]:
    missing = [each.name for each in model.inputs if each.name not in inputs and not each.optional]
    if missing:
        raise CommandError(
            f"model '{model.name}' also wants {_quoted(missing)}: give it with --input NAME=FILE"
        )
    rows = {name: len(array) for name, array in inputs.items()} if model.max_batch_size else {}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise CommandError(
            f"inputs of model '{model.name}' have different numbers of rows: {counts}"
        )
    return inputs


def _quoted(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
