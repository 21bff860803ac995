"""Pushing: from a path and what the pusher says to a version in the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from penstock.store.artifacts import Watch, unwatched
from penstock.store.capture import code_of, scrubbed
from penstock.store.failures import RefusedError, StoreError, StoreUnavailableError
from penstock.store.files import os_failure
from penstock.store.golden import split_golden
from penstock.store.home import size_of
from penstock.store.layout import lay_out
from penstock.store.location import has_credentials, without_credentials
from penstock.store.manifest import Manifest
from penstock.store.onnx_facts import onnx_facts
from penstock.store.package import Package, make_package
from penstock.store.records import (
    Link,
    MetricValue,
    NewVersion,
    Reference,
    VersionRecord,
    check_name,
)
from penstock.store.store import Store

__all__ = ["Imported", "Inspection", "PushRequest", "push_model"]

_DIGEST = re.compile(r"[A-Za-z0-9_+-]+:[0-9A-Za-z]{8,128}|[0-9a-f]{8,128}")
_HASHED = re.compile(r"(sha\d*|md5|blake\w*|xxh\w*|crc\w*)[:_-][^/]*", re.IGNORECASE)
"""What is meant for a digest, and not the end of a URI."""
_MAX_TEXT = 255


@dataclass(frozen=True, slots=True)
class Inspection:
    """What loading a model says of it: its backend and signature; `note` says why there is none."""

    backend: str = ""
    signature: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What another registry knows of a version.

    Attributes:
        links: data, code and the training run.
        metrics: as they were measured there.
    """

    links: Sequence[Link] = ()
    metrics: Sequence[MetricValue] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """What the pusher says. Texts as on the command line.

    Attributes:
        data: NAME=URI[@DIGEST].
        features: NAME[:VERSION], in the model's order.
        metrics: NAME=VALUE[@DATASET], a dataset of `data` or a digest.
        run: ID or ID=URI of the training run.
        parent: NAME@VERSION that it was made from, and `recipe`: how.
        strict: refuse what has no owner, no code or no data with a digest.
        imported: what another registry knows of it; then no code is looked for: the place where
            the registry keeps a model is not the one where it was made.
    """

    name: str
    path: Path
    owner: str = ""
    team: str = ""
    description: str = ""
    license: str = ""
    data: Sequence[str] = ()
    features: Sequence[str] = ()
    metrics: Sequence[str] = ()
    run: str = ""
    parent: str = ""
    recipe: str = ""
    goldens: Sequence[Path] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    from_version: int | None = None
    strict: bool = False
    imported: Imported | None = None


def push_model(
    store: Store,
    request: PushRequest,
    inspect: Callable[[str, Path], Inspection],
    working_directory: Path,
    watch: Watch = unwatched,
) -> VersionRecord:
    """Packages, stores and inspects a model, and records everything known of it.

    Args:
        store: that takes it.
        request: what the pusher says.
        inspect: loads a model of a name from a repository; it may run the code of a Python model.
        working_directory: where the pusher is: code is looked for at the path, then here.
        watch: is told of the bytes that are stored.

    Raises:
        RefusedError: something is not allowed, missing with `strict`, or does not load.
        StoreError: it cannot be stored.
    """
    check_name("model", request.name)
    package = make_package(request.path, request.from_version)
    known = _known(store, request, package, working_directory)
    _check_no_secrets(package)
    if request.strict:
        _check_complete(request.name, known)
    goldens = _goldens(request.goldens)

    def describe(manifest: Manifest) -> NewVersion:
        found = _inspected(store, request.name, manifest, inspect)
        runtime = {**known.runtime, **({"not inspected": found.note} if found.note else {})}
        return replace(
            known,
            digest=manifest.digest,
            files=manifest.files,
            backend=found.backend,
            signature=found.signature,
            runtime=runtime,
        )

    try:
        with watch(request.name, size_of(package.files)) as moved:
            return store.push(package.files, describe, goldens, request.aliases, moved)
    except StoreUnavailableError:
        raise  # the version may be there after all, and need its bytes
    except Exception:
        with suppress(StoreError):
            store.clean(only_pushed=True)  # of bytes that no version came to need
        raise


def _inspected(
    store: Store, name: str, manifest: Manifest, inspect: Callable[[str, Path], Inspection]
) -> Inspection:
    artifacts = store.artifacts
    is_code = any(each.path.endswith(".py") for each in manifest.files)
    bring = partial(artifacts.link_out, is_private=is_code)  # code might write to a blob
    with artifacts.scratch() as directory:
        lay_out(manifest.files, directory / name, 1, bring)
        return inspect(name, directory)


def _known(
    store: Store, request: PushRequest, package: Package, working_directory: Path
) -> NewVersion:
    """All but digest, files and what loading says."""
    imported = request.imported or Imported()
    code = None if request.imported else code_of(request.path.absolute(), working_directory)
    has_run = any(link.kind == "run" for link in imported.links)
    data = tuple(_data(text) for text in request.data)
    links = [
        *data,
        *(_feature(text) for text in request.features),
        *([code] if code else []),
        *imported.links,
        *([_run(request.run)] if request.run else () if has_run else package.links),
        *([_parent(store, request)] if request.parent else []),
    ]
    model = package.source("version/model.onnx")
    facts = onnx_facts(model) if isinstance(model, Path) else {}
    return NewVersion(
        model=request.name,
        digest="",
        files=(),
        source_format=package.source_format,
        creator=store.actor,
        owner=_short("--owner", request.owner),
        team=_short("--team", request.team),
        description=scrubbed(request.description),
        license=_short("--license", request.license),
        runtime={**package.runtime, **({"onnx": _clean(facts)} if facts else {})},
        requirements=tuple(scrubbed(line) for line in package.requirements),
        links=tuple(links),
        metrics=(*imported.metrics, *_metrics(request.metrics, data)),
        tags={_short("--tag", key): scrubbed(value) for key, value in request.tags.items()},
    )


def _check_no_secrets(package: Package) -> None:
    """What is stored goes to every server: a password of an index does not belong there."""
    source = package.source("requirements.lock")
    if not isinstance(source, Path):
        return
    try:
        lines = source.read_text(errors="replace").splitlines()
    except OSError as error:
        raise os_failure("cannot read 'requirements.lock'", error) from error
    for number, line in enumerate(lines, 1):
        if has_credentials(line):
            raise RefusedError(
                f"'requirements.lock' line {number} has a URL with a user, password or token: "
                "configure them where environments are built"
            )


def _check_complete(name: str, known: NewVersion) -> None:
    kinds = {link.kind for link in known.links}
    vague = [link.name for link in known.links if link.kind == "data" and not link.digest]
    missing = [
        *([] if known.owner else ["no owner: give --owner"]),
        *([] if "code" in kinds else ["no code: neither PATH nor this directory is a git commit"]),
        *([] if "data" in kinds else ["no data: give --data NAME=URI@DIGEST"]),
        *(f"no digest of data '{each}': give --data {each}=URI@DIGEST" for each in vague),
    ]
    if missing:
        raise RefusedError(*(f"'{name}' is refused by --strict: {each}" for each in missing))


def _goldens(paths: Sequence[Path]) -> dict[str, bytes]:
    goldens = {}
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise os_failure(f"cannot read '{path.name}'", error) from error
        parts = split_golden(content, path.name)
        for number, part in enumerate(parts):
            key = path.name if len(parts) == 1 else f"{path.name}#{number}"
            if key in goldens:
                raise RefusedError(f"--golden {path.name}: there are two files of that name")
            goldens[key] = part
    return goldens


def _data(text: str) -> Link:
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise RefusedError(f"--data: expected NAME=URI@DIGEST, got '{scrubbed(text)}'")
    uri, at, digest = rest.rpartition("@")
    if not at or not _DIGEST.fullmatch(digest):
        if at and _HASHED.fullmatch(digest):
            raise RefusedError(
                f"--data {name}: '{digest}' is no digest: expected ALGORITHM:DIGEST, of 8 to 128 "
                "letters and digits"
            )
        uri, digest = rest, ""
    return Link("data", _short("--data", name), uri=without_credentials(uri), digest=digest)


def _feature(text: str) -> Link:
    name, _, revision = text.partition(":")
    if not name:
        raise RefusedError(f"--feature: expected NAME:VERSION, got '{text}'")
    return Link("feature", _short("--feature", name), _short("--feature", revision))


def _run(text: str) -> Link:
    name, _, uri = text.partition("=")
    return Link("run", _short("--run", name), uri=without_credentials(uri))


def _parent(store: Store, request: PushRequest) -> Link:
    parent = store.show(Reference.parse(request.parent))
    details = {"recipe": scrubbed(request.recipe)} if request.recipe else {}
    return Link("parent", parent.model, str(parent.version), digest=parent.digest, details=details)


def _metrics(texts: Sequence[str], data: Sequence[Link]) -> tuple[MetricValue, ...]:
    found = tuple(_metric(text, data) for text in texts)
    named = [(each.name, each.dataset) for each in found]
    for name, dataset in named:
        if named.count((name, dataset)) > 1:
            on = f" on '{dataset}'" if dataset else ""
            raise RefusedError(f"--metric: '{name}'{on} is given twice")
    return found


def _metric(text: str, data: Sequence[Link]) -> MetricValue:
    name, equals, rest = text.partition("=")
    written, _, dataset = rest.partition("@")
    try:
        value = float(written)
    except ValueError:
        equals = ""
        value = 0.0
    if not name or not equals:
        raise RefusedError(f"--metric: expected NAME=VALUE@DATASET, got '{text}'")
    if value != value or value in (float("inf"), float("-inf")):
        raise RefusedError(f"--metric: '{name}' is {written}, expected a finite number")
    known = {link.name: link.digest for link in data}
    if dataset and dataset not in known and not _DIGEST.fullmatch(dataset):
        raise RefusedError(f"--metric: '{dataset}' of '{name}' is neither a digest nor of --data")
    digest = known.get(dataset, dataset)
    return MetricValue(_short("--metric", name), value, dataset, digest)


def _short(flag: str, text: str) -> str:
    if len(text) > _MAX_TEXT or any(ord(each) < 0x20 for each in text):
        raise RefusedError(f"{flag}: expected at most {_MAX_TEXT} characters on one line")
    return scrubbed(text)


def _clean(facts: Any) -> Any:
    """Facts of a file without what databases refuse: NUL, which PostgreSQL does not take."""
    if isinstance(facts, str):
        return scrubbed(facts.replace("\0", ""))
    if isinstance(facts, dict):
        return {str(_clean(key)): _clean(value) for key, value in facts.items()}
    return facts
