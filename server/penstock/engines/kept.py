"""Engines on disk: a plan, and beside it what it was made of; so none is taken for another.

`model.plan` has `model.plan.json`: the key, the recipe behind it, and the plan's digest. Both are
written whole or not at all, the plan last: between the two a reader finds a plan that is not the
sidecar's, and says so.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.engines.key import EngineRecipe, file_sha256
from penstock.errors import PenstockError

SUFFIX = ".json"
"""Of the sidecar, behind the plan's name."""
_MAX_SIDECAR_BYTES = 4 << 20
_KEY = "key"
_ASKED = "asked"
_OPERATIONS = "operations_per_inference"
_LIBRARIES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}

_log = logging.getLogger("penstock.engines")


class EngineError(PenstockError):
    """An engine cannot be built, kept or used; says which and why."""


def write_engine(
    plan: Path, content: bytes | memoryview, recipe: EngineRecipe, asked: str | None = None
) -> str:
    """Writes a plan and its sidecar; whoever reads meanwhile finds the old pair or a fault.

    Args:
        plan: where it goes.
        content: its bytes.
        recipe: what it was made of.
        asked: the `asked_key` of the request that it was made for, if it is known.

    Returns:
        The plan's digest.

    Raises:
        EngineError: the place cannot be written to.
    """
    try:
        with _whole_file(plan) as scratch:
            scratch.write_bytes(content)
            digest = file_sha256(scratch)
            with _whole_file(sidecar_of(plan)) as sidecar:
                sidecar.write_text(_sidecar_text(recipe, digest, asked))
    except OSError as error:
        raise EngineError(f"engine '{plan}' cannot be written: {error.strerror}") from error
    return digest


def find_current(plan: Path, recipe: EngineRecipe) -> dict[str, Any] | None:
    """The sidecar of a plan that is there, whole, and of exactly this recipe; None: it is not."""
    return _find_whole(plan, _KEY, recipe.key())


def find_asked(plan: Path, asked: str) -> dict[str, Any] | None:
    """The sidecar of a plan that is there, whole, and what this `asked_key` was answered with.

    None says nothing: the plan may be current all the same.
    """
    return _find_whole(plan, _ASKED, asked)


def verify_engine(plan: Path) -> dict[str, Any]:
    """Reads a plan against its sidecar.

    Returns:
        The sidecar: key, recipe, sha256, size_bytes.

    Raises:
        EngineError: it has no sidecar, or is not the plan that the sidecar was written for.
    """
    sidecar = _read_sidecar(plan)
    if sidecar is None:
        raise EngineError(f"engine '{plan.name}' has no readable {plan.name}{SUFFIX} beside it")
    try:
        digest = file_sha256(plan)
    except OSError as error:
        raise EngineError(f"engine '{plan.name}' cannot be read: {error.strerror}") from error
    if digest != sidecar.get("sha256"):
        raise EngineError(
            f"engine '{plan.name}' is not what was built: expected SHA-256 "
            f"{sidecar.get('sha256')}, got {digest}"
        )
    return sidecar


def keep_asked(plan: Path, sidecar: dict[str, Any], asked: str) -> dict[str, Any]:
    """Has `find_asked` find it the next time, where the place can be written to.

    Returns:
        The sidecar, as it is then.
    """
    if sidecar.get(_ASKED) == asked:
        return sidecar
    more = {**sidecar, _ASKED: asked}
    try:
        write_file(sidecar_of(plan), _json_text(more).encode())
    except EngineError:  # another's directory, which we may only read
        return sidecar
    return more


def keep_operations(plan: Path, sidecar: dict[str, Any], operations: int | None) -> dict[str, Any]:
    """Keeps what a row costs, for who serves the plan without its model.

    Args:
        plan: that was verified.
        sidecar: what that gave.
        operations: of a row; None: nobody knows, and nothing is kept.

    Returns:
        The sidecar, as it is then.

    Raises:
        EngineError: the place cannot be written to.
    """
    if operations is None:
        return sidecar
    more = {**sidecar, _OPERATIONS: operations}
    write_file(sidecar_of(plan), _json_text(more).encode())
    return more


def operations_in(sidecar: Mapping[str, Any]) -> int | None:
    """What a row costs, as a sidecar says; None: it does not."""
    operations = sidecar.get(_OPERATIONS)
    return operations if isinstance(operations, int) else None


def operations_of(plan: Path) -> int | None:
    """What a row costs a plan, as was counted when it was built; None: it was not.

    Blocking: reads the plan, for the sidecar may be another one's.
    """
    try:
        return operations_in(verify_engine(plan))
    except EngineError as error:
        _log.info("%s: nothing is known of its operations", error)
        return None


def library_of(plan: Path) -> str | None:
    """What built a plan, and its version: "TensorRT 11.1.0.106"; None: nothing says so.

    Blocking: as `operations_of`.
    """
    try:
        recipe = verify_engine(plan).get("recipe")
    except EngineError:
        return None
    match recipe:
        case {"library": [str(flavour), str(version)]}:
            return f"{_LIBRARIES.get(flavour, flavour)} {version}"
    return None


@contextmanager
def only_builder(directory: Path) -> Iterator[None]:
    """Blocking: until no other process builds into the directory, which is made if need be.

    Raises:
        EngineError: the directory cannot be made or opened.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise EngineError(f"directory '{directory}' cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that is whole whenever it is there.

    Raises:
        EngineError: the place cannot be written to.
    """
    try:
        with _whole_file(path) as scratch:
            scratch.write_bytes(content)
    except OSError as error:
        raise EngineError(f"'{path}' cannot be written: {error.strerror}") from error


def sidecar_of(plan: Path) -> Path:
    """Where a plan's recipe is kept."""
    return plan.with_name(plan.name + SUFFIX)


def _sidecar_text(recipe: EngineRecipe, digest: str, asked: str | None) -> str:
    content = {_KEY: recipe.key(), "recipe": json.loads(recipe.canonical()), "sha256": digest}
    return _json_text(content if asked is None else {**content, _ASKED: asked})


def _json_text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _find_whole(plan: Path, field: str, value: str) -> dict[str, Any] | None:
    sidecar = _read_sidecar(plan)
    if sidecar is None or sidecar.get(field) != value:
        return None
    try:
        return verify_engine(plan)
    except EngineError as error:
        _log.warning("%s: it is built again", error)
        return None


def _read_sidecar(plan: Path) -> dict[str, Any] | None:
    try:
        with sidecar_of(plan).open("rb") as file:
            content = json.loads(file.read(_MAX_SIDECAR_BYTES))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, durable and renamed to it in the end, or gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o644)
        _sync(scratch)
        scratch.replace(path)
        _sync(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
