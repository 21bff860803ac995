"""Reads MLflow's registry from the files of its file store, without MLflow.

::

    models/NAME/meta.yaml, tags/KEY, aliases/ALIAS       a registered model
    models/NAME/version-3/meta.yaml, tags/KEY            a version: source, run, status
    EXPERIMENT/RUN/params/KEY, metrics/KEY, tags/KEY     a run; its artifacts are below artifacts/
    EXPERIMENT/RUN/inputs/ID/meta.yaml                   data that the run was given
    EXPERIMENT/datasets/ID/meta.yaml                     name, digest and source of such data
    EXPERIMENT/models/m-ID/artifacts/                    a logged model of MLflow 3

A file store that was copied from elsewhere names paths that are not here: what is below it is found
by the run's or the logged model's id.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from penstock.store.failures import RefusedError, StoreError
from penstock.store.files import os_failure
from penstock.store.importing import Found
from penstock.store.location import without_credentials
from penstock.store.mlflow import MLMODEL, plain_text, read_yaml
from penstock.store.mlflow_facts import (
    check_ready,
    data_link,
    imported_run,
    is_long,
    last_metric,
    push_request,
)
from penstock.store.pushing import Imported, PushRequest
from penstock.store.records import Link, MetricValue

__all__ = ["mlflow_versions"]

_META = "meta.yaml"
_VERSION = re.compile(r"version-([1-9][0-9]{0,17})")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_MAX_VALUE_BYTES = 64 << 10
_MAX_NAME = 255
_DELETED = "Deleted_Internal"
"""The stage of what was deleted: MLflow keeps its files, and shows it to nobody."""


def mlflow_versions(root: Path, names: Mapping[str, str]) -> Iterator[Found]:
    """Every version of every registered model, oldest first.

    Args:
        root: of the file store, which MLflow calls mlruns.
        names: of the models to import, and what they are called here; empty = all, as there.

    Raises:
        RefusedError: it is no file store, or has no such model.
        StoreUnavailableError: it cannot be read.
    """
    registry = root / "models"
    try:
        metas = [each.parent for each in sorted(registry.glob(f"*/{_META}"))]
        models = {plain_text(read_yaml(each / _META).get("name")): each for each in metas}
        unknown = [f"'{root}' has no model '{name}'" for name in names if name not in models]
        if unknown or not models:
            what = f"'{root}' has no registered models: is it a file store of MLflow's?"
            raise RefusedError(*(unknown or [what]))
        for name, place in models.items():
            if not names or name in names:
                yield from _versions(root, place, name, names.get(name, name))
    except OSError as error:
        raise os_failure(f"cannot read '{root}'", error) from error


def _versions(root: Path, place: Path, name: str, ours: str) -> Iterator[Found]:
    model = read_yaml(place / _META)
    matches = ((_VERSION.fullmatch(each.name), each) for each in place.iterdir())
    numbered = sorted((int(match[1]), each) for match, each in matches if match)
    aliases: dict[str, list[str]] = {}
    for alias, pointed in _values(place / "aliases").items():
        aliases.setdefault(pointed.strip(), []).append(alias)
    for number, each in numbered:
        origin = f"mlflow:{name}@{number}"
        try:
            version = read_yaml(each / _META)
            if plain_text(version.get("current_stage")) == _DELETED:
                continue
            tags = {**_values(place / "tags"), **_values(each / "tags")}
            request = _request(root, model, version, tags, aliases.get(str(number), []), ours)
            yield Found(origin, request)
        except StoreError as error:
            yield Found(origin, None, "; ".join(error.lines))
        except OSError as error:
            yield Found(origin, None, "; ".join(os_failure("cannot read it", error).lines))


def _request(
    root: Path,
    model: Mapping[str, Any],
    version: Mapping[str, Any],
    tags: Mapping[str, str],
    aliases: list[str],
    ours: str,
) -> PushRequest:
    check_ready(version)
    run_id = plain_text(version.get("run_id"))
    run = _run_directory(root, run_id)
    path = _source(root, run, version)
    imported = _imported(run, run_id, plain_text(version.get("run_link")))
    return push_request(
        ours, path, model=model, version=version, tags=tags, aliases=aliases, imported=imported
    )


def _source(root: Path, run: Path | None, version: Mapping[str, Any]) -> Path:
    """The directory of a version's model.

    Raises:
        RefusedError: it is not on this machine.
    """
    named = [plain_text(version.get(key)) for key in ("source", "storage_location")]
    for text in filter(None, named):
        for path in _places(root, run, text):
            if (path / MLMODEL).is_file():
                return path
    shown = ", ".join(f"'{without_credentials(text)}'" for text in named if text) or "nowhere"
    raise RefusedError(f"its model is not on this machine: it is at {shown}")


def _places(root: Path, run: Path | None, text: str) -> Iterator[Path]:
    """Where a source may be."""
    scheme, colon, rest = text.partition(":/")
    if colon and scheme == "models" and _ID.fullmatch(rest):
        yield from sorted(root.glob(f"*/models/{rest}/artifacts"))
    elif colon and scheme == "runs" and run is not None:
        yield from _below(run / "artifacts", rest.partition("/")[2])
    elif not colon or scheme in ("file", ""):
        path = unquote(urlsplit(text).path) if scheme == "file" else text
        yield Path(path)
        if run is not None and f"/{run.name}/artifacts/" in path:
            yield from _below(run / "artifacts", path.partition(f"/{run.name}/artifacts/")[2])
        found = re.search(r"/models/(m-[A-Za-z0-9_-]+)/artifacts/?$", path)
        if found:
            yield from sorted(root.glob(f"*/models/{found[1]}/artifacts"))


def _below(base: Path, relative: str) -> Iterator[Path]:
    if not any(part in ("", ".", "..") for part in relative.split("/")):
        yield base / relative


def _run_directory(root: Path, run_id: str) -> Path | None:
    if not _ID.fullmatch(run_id):
        return None
    return next((each.parent for each in sorted(root.glob(f"*/{run_id}/{_META}"))), None)


def _imported(run: Path | None, run_id: str, run_link: str) -> Imported:
    if not run_id:
        return Imported()
    if run is None:
        link = Link("run", run_id[:_MAX_NAME], uri=without_credentials(run_link))
        return Imported(links=(link,))
    return imported_run(
        run_id,
        run_link,
        tags=_values(run / "tags"),
        params=_values(run / "params"),
        data=_data(run),
        metrics=list(_metrics(run)),
    )


def _data(run: Path) -> Iterator[Link]:
    for meta in sorted((run / "inputs").glob(f"*/{_META}")):
        source_id = plain_text(read_yaml(meta).get("source_id"))
        place = run.parent / "datasets" / source_id / _META
        if _ID.fullmatch(source_id) and place.is_file():
            dataset = read_yaml(place)
            yield data_link(dataset.get("name"), dataset.get("digest"), dataset.get("source"))


def _metrics(run: Path) -> Iterator[MetricValue]:
    """The last value of each, as MLflow has it: of the greatest step, then time, then value.

    A line is its time, value, step, and maybe data and its digest.
    """
    for name, text in _values(run / "metrics").items():
        lines = [line.split() for line in text.splitlines()]
        try:
            last = max((line for line in lines if len(line) >= 2), key=_recency)
        except ValueError:  # there is none, or one is no metric
            continue
        yield from last_metric(name, float(last[1]), *(last[3:5] if len(last) >= 5 else ()))


def _recency(line: Sequence[str]) -> tuple[int, int, float]:
    value = float(line[1])
    step = int(line[2]) if len(line) > 2 else 0
    return step, int(line[0]), -math.inf if math.isnan(value) else value


def _values(directory: Path) -> dict[str, str]:
    """Small files by their names; below a directory MLflow writes names that have a slash."""
    found = {}
    for path in sorted(directory.rglob("*")):
        key = path.relative_to(directory).as_posix()
        is_plain = path.is_file() and not path.is_symlink()
        if is_plain and not is_long(key) and path.stat().st_size <= _MAX_VALUE_BYTES:
            found[key] = path.read_text(errors="replace").replace("\0", "")
    return found
