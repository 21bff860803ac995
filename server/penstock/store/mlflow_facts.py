"""What MLflow's registry and its runs say, however they were read, as a push wants it.

What others wrote is not trusted: texts are cut, scrubbed of credentials, and names that a tag or an
alias cannot have are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.store.failures import RefusedError
from penstock.store.location import scrubbed, without_credentials
from penstock.store.mlflow import plain_text
from penstock.store.pushing import Imported, PushRequest
from penstock.store.records import Link, MetricValue, check_alias

__all__ = [
    "check_ready",
    "data_link",
    "imported_run",
    "is_long",
    "last_metric",
    "push_request",
]

_MAX_NAME = 255
_GIT = "mlflow.source.git."


def check_ready(version: Mapping[str, Any]) -> None:
    """Raises RefusedError unless its files are all there; MLflow's name or number of that state."""
    status = plain_text(version.get("status")) or "READY"
    if status not in ("READY", "2"):
        raise RefusedError(f"its status is {status}, not READY")


def push_request(
    ours: str,
    path: Path,
    *,
    model: Mapping[str, Any],
    version: Mapping[str, Any],
    tags: Mapping[str, str],
    aliases: Iterable[str],
    imported: Imported,
) -> PushRequest:
    """The push of a version.

    Args:
        ours: its name here.
        path: of MLflow's directory of the model.
        model: the registered model: its description.
        version: its description, stage and user.
        tags: of both.
        aliases: that point to it.
        imported: of its run.
    """
    kept = {key: value for key, value in tags.items() if not is_long(key)}
    stage = plain_text(version.get("current_stage"))
    if stage not in ("", "None"):
        kept["mlflow.stage"] = stage
    user = plain_text(version.get("user_id"))
    if user:
        kept["mlflow.user"] = user
    return PushRequest(
        name=ours,
        path=path,
        description=plain_text(version.get("description")) or plain_text(model.get("description")),
        tags=kept,
        aliases=[alias for alias in aliases if _is_alias(alias)],
        imported=imported,
    )


def imported_run(
    run_id: str,
    run_link: str,
    *,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    data: Iterable[Link] = (),
    metrics: Sequence[MetricValue] = (),
) -> Imported:
    """What a run knows: its parameters, data and metrics, and the code that it ran."""
    details: dict[str, Any] = {"source": "mlflow"}
    clean = {key: scrubbed(value) for key, value in params.items()}
    details |= {"params": clean} if clean else {}
    for key in ("mlflow.runName", "mlflow.user", "mlflow.source.name"):
        details |= {key: scrubbed(tags[key])} if tags.get(key) else {}
    run = Link("run", run_id[:_MAX_NAME], uri=without_credentials(run_link), details=details)
    return Imported(links=[*data, *_code(tags), run], metrics=tuple(metrics))


def _code(tags: Mapping[str, str]) -> list[Link]:
    commit = tags.get(f"{_GIT}commit", "").strip()
    if not commit:
        return []
    uri = without_credentials(tags.get(f"{_GIT}repoURL", "").strip())
    name = uri or tags.get("mlflow.source.name", "").strip() or "code"
    details = {"branch": scrubbed(tags.get(f"{_GIT}branch", "").strip())}
    return [Link("code", scrubbed(name)[:_MAX_NAME], commit[:_MAX_NAME], uri, details=details)]


def data_link(name: Any, digest: Any, source: Any) -> Link:
    """A dataset that a run was given."""
    return Link(
        "data",
        plain_text(name)[:_MAX_NAME] or "data",
        uri=_dataset_uri(plain_text(source)),
        digest=plain_text(digest)[:_MAX_NAME],
    )


def _dataset_uri(source: str) -> str:
    """Where data is: MLflow keeps JSON of it, which has the address under one of a few names."""
    try:
        found = json.loads(source)
    except ValueError:
        return without_credentials(source)
    for key in ("uri", "url", "path"):
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return without_credentials(found[key])
    return ""


def last_metric(name: str, value: float, dataset: str = "", digest: str = "") -> list[MetricValue]:
    """The metric; none where it is not a finite number, or nothing may be called so."""
    if is_long(name) or not math.isfinite(value):
        return []
    return [MetricValue(name, value, dataset[:_MAX_NAME], digest[:_MAX_NAME])]


def is_long(key: str) -> bool:
    """Whether nothing may be called so."""
    return len(key) > _MAX_NAME or any(ord(each) < 0x20 for each in key)


def _is_alias(name: str) -> bool:
    try:
        check_alias(name)
    except RefusedError:
        return False
    return True
