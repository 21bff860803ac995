"""Reads MLflow's registry from a tracking server, without MLflow: by its REST API.

Models come through the server (`mlflow-artifacts:`, MLflow's default), one version at a time, into
a temporary directory; of what lies elsewhere and is not passed on, the place is told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.store.failures import RefusedError, StoreError, StoreUnavailableError
from penstock.store.files import os_failure
from penstock.store.importing import Found
from penstock.store.location import without_credentials
from penstock.store.manifest import path_fault
from penstock.store.mlflow import MLMODEL, plain_text, read_mlflow
from penstock.store.mlflow_client import TrackingServer, rows
from penstock.store.mlflow_facts import (
    check_ready,
    data_link,
    imported_run,
    is_long,
    last_metric,
    push_request,
)
from penstock.store.pushing import Imported
from penstock.store.records import MetricValue

__all__ = ["server_versions"]

_PAGE = "100"
_PROXIED = "mlflow-artifacts"
_PROMPT = "mlflow.prompt.is_prompt"
"""The tag of a registered prompt, which MLflow keeps as a model."""


def server_versions(server: TrackingServer, names: Mapping[str, str]) -> Iterator[Found]:
    """Every version of every registered model, oldest first, with its files until the next.

    Args:
        server: to ask.
        names: of the models to import, and what they are called here; empty = all, as there.

    Raises:
        RefusedError: it is no tracking server, or has no such model.
        StoreUnavailableError: it does not answer.
    """
    models = list(_models(server, names))
    if not models:
        raise RefusedError(f"'{server.shown}' has no registered models")
    for model in models:
        name = plain_text(model.get("name"))
        yield from _versions(server, model, name, names.get(name, name))


def _models(server: TrackingServer, names: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    if not names:
        found = server.pages("registered-models/search", "registered_models", max_results=_PAGE)
        yield from (each for each in found if _pairs(each, "tags").get(_PROMPT) != "true")
    for name in names:
        try:
            model = server.get("registered-models/get", name=name).get("registered_model")
        except RefusedError as error:
            raise RefusedError(f"'{server.shown}' has no model '{name}': {error}") from None
        if isinstance(model, dict):
            yield model


def _versions(
    server: TrackingServer, model: Mapping[str, Any], name: str, ours: str
) -> Iterator[Found]:
    # Quoted as MLflow's filters have it: it knows no escape.
    mark = '"' if "'" in name else "'"
    wanted = {"filter": f"name={mark}{name}{mark}", "max_results": _PAGE}
    found = server.pages("model-versions/search", "model_versions", **wanted)
    numbered = {_number(each): each for each in found if plain_text(each.get("name")) == name}
    for number in sorted(numbered):
        yield from _version(server, model, numbered[number], f"mlflow:{name}@{number}", ours)


def _version(
    server: TrackingServer,
    model: Mapping[str, Any],
    version: Mapping[str, Any],
    origin: str,
    ours: str,
) -> Iterator[Found]:
    number = plain_text(version.get("version"))
    pointing = (
        each for each in rows(model, "aliases") if plain_text(each.get("version")) == number
    )
    with tempfile.TemporaryDirectory(prefix="penstock-import-") as directory:
        try:
            check_ready(version)
            _bring(server, version, Path(directory))
            request = push_request(
                ours,
                Path(directory),
                model=model,
                version=version,
                tags={**_pairs(model, "tags"), **_pairs(version, "tags")},
                aliases=[plain_text(each.get("alias")) for each in pointing],
                imported=_imported(server, version),
            )
            found = Found(origin, request)
        except StoreUnavailableError:
            raise  # nor will it answer for the next
        except StoreError as error:
            found = Found(origin, None, "; ".join(error.lines))
        except OSError as error:
            found = Found(origin, None, "; ".join(os_failure("cannot fetch it", error).lines))
        yield found


def _bring(server: TrackingServer, version: Mapping[str, Any], directory: Path) -> None:
    """Fetches a version's model; what cannot be served is refused before it comes."""
    place = _place(server, version)
    files = server.files(place)
    if MLMODEL not in files:
        raise RefusedError(f"there is no {MLMODEL} at '{_PROXIED}:/{place}'")
    for path in sorted(files, key=lambda each: each != MLMODEL):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        server.download(f"{place}/{path}", files[path], target)
        if path == MLMODEL:
            read_mlflow(directory)


def _place(server: TrackingServer, version: Mapping[str, Any]) -> str:
    """The directory of a version's model among the artifacts that the server passes on.

    Raises:
        RefusedError: it is elsewhere.
    """
    name, number = (plain_text(version.get(key)) for key in ("name", "version"))
    answer = server.get("model-versions/get-download-uri", name=name, version=number)
    uri = plain_text(answer.get("artifact_uri"))
    parts = urlsplit(uri)
    place = parts.path.strip("/")
    if parts.scheme != _PROXIED or parts.netloc not in ("", server.address):
        raise RefusedError(
            f"its model is at '{without_credentials(uri)}': only what the tracking server passes "
            f"on ({_PROXIED}:) is fetched"
        )
    fault = path_fault(place)
    if fault:
        raise RefusedError(f"the place of its model is refused: {fault}")
    return place


def _imported(server: TrackingServer, version: Mapping[str, Any]) -> Imported:
    run_id = plain_text(version.get("run_id"))
    if not run_id:
        return Imported()
    link = plain_text(version.get("run_link"))
    try:
        run = _part(server.get("runs/get", run_id=run_id), "run")
    except RefusedError:  # deleted since
        return imported_run(run_id, link, tags={}, params={})
    data = _part(run, "data")
    given = [_part(each, "dataset") for each in rows(_part(run, "inputs"), "dataset_inputs")]
    return imported_run(
        run_id,
        link,
        tags=_pairs(data, "tags"),
        params=_pairs(data, "params"),
        data=[
            data_link(each.get("name"), each.get("digest"), each.get("source")) for each in given
        ],
        metrics=[*_metrics(data), *_measured(server, version)],
    )


def _measured(server: TrackingServer, version: Mapping[str, Any]) -> list[MetricValue]:
    """Metrics of a logged model (MLflow 3) that say what they were measured on."""
    model_id = plain_text(version.get("source")).partition("models:/")[2]
    if not model_id or path_fault(model_id) or "/" in model_id:
        return []
    try:
        logged = _part(server.get(f"logged-models/{model_id}"), "model")
    except RefusedError:  # as servers before MLflow 3 do
        return []
    found = _metrics(_part(logged, "data"))
    return [each for each in found if each.dataset]


def _metrics(data: Mapping[str, Any]) -> list[MetricValue]:
    """The last value of each, by name and dataset."""
    found: dict[tuple[str, str], MetricValue] = {}
    for each in rows(data, "metrics"):
        name, dataset, digest = (
            plain_text(each.get(key)) for key in ("key", "dataset_name", "dataset_digest")
        )
        try:
            value = float(each.get("value", 0.0))  # not a number and infinity are texts
        except (TypeError, ValueError, OverflowError):
            continue
        for metric in last_metric(name, value, dataset, digest):
            found[metric.name, metric.dataset] = metric
    return list(found.values())


def _part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = found.get(key)
    return part if isinstance(part, dict) else {}


def _pairs(found: Mapping[str, Any], key: str) -> dict[str, str]:
    """Tags and parameters, which are lists of keys and values."""
    pairs = ((plain_text(e.get("key")), plain_text(e.get("value"))) for e in rows(found, key))
    return {key: value for key, value in pairs if key and not is_long(key)}


def _number(version: Mapping[str, Any]) -> int:
    text = plain_text(version.get("version"))
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
