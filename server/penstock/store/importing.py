"""Imports: whole repositories and registries, version by version, with what they know.

What was imported has the tag `imported`, which says from where: done again, an import brings only
what is new or has other bytes than before, and points aliases to where the registry has them now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.store.artifacts import Watch, unwatched
from penstock.store.failures import (
    RefusedError,
    StoreError,
    StoreUnavailableError,
    UnknownEntryError,
)
from penstock.store.files import SourceFile, hash_file, os_failure
from penstock.store.manifest import FileEntry, Manifest
from penstock.store.package import make_package
from penstock.store.pushing import Imported, Inspection, PushRequest, push_model
from penstock.store.records import Reference, VersionRecord, VersionStatus
from penstock.store.store import Store

__all__ = ["Found", "Outcome", "import_found", "triton_versions"]

ORIGIN = "imported"
"""The tag."""
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Found:
    """A version of another registry.

    Attributes:
        origin: which one, in a word: triton:NAME@3.
        request: that pushes it; None: it cannot be.
        fault: why.
    """

    origin: str
    request: PushRequest | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a version.

    Attributes:
        reference: NAME@VERSION that it is in the store; "" = it is not there.
        fault: why not, or what of it was not taken.
        is_new: it was not there before.
    """

    origin: str
    reference: str = ""
    fault: str = ""
    is_new: bool = False


def import_found(
    store: Store,
    found: Iterable[Found],
    inspect: Callable[[str, Path], Inspection],
    watch: Watch = unwatched,
) -> Iterator[Outcome]:
    """Pushes one after the other; one that is refused does not keep the others out.

    Raises:
        StoreUnavailableError: the store went away; what was imported is there.
    """
    known: dict[str, dict[str, VersionRecord]] = {}
    for each in found:
        if each.request is None:
            yield Outcome(each.origin, fault=each.fault)
            continue
        name = each.request.name
        try:
            if name not in known:
                known[name] = _imported(store, name)
            yield _import(store, each.origin, each.request, known[name], inspect, watch)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            yield Outcome(each.origin, fault="; ".join(error.lines))


def _import(
    store: Store,
    origin: str,
    request: PushRequest,
    known: dict[str, VersionRecord],
    inspect: Callable[[str, Path], Inspection],
    watch: Watch,
) -> Outcome:
    was = known.get(origin)
    if was is not None and was.digest == _digest_of(request):
        if was.status == VersionStatus.QUARANTINED:
            return Outcome(origin, was.reference, f"{was.reference} is quarantined: {was.reason}")
        for alias in request.aliases:
            store.alias(request.name, alias, was.version)
        return Outcome(origin, was.reference)
    tagged = replace(request, tags={**request.tags, ORIGIN: origin})
    record = push_model(store, tagged, inspect, request.path, watch)
    known[origin] = record
    return Outcome(origin, record.reference, is_new=True)


def _digest_of(request: PushRequest) -> str:
    """Of the artifact that a push would make; reads all of it."""
    files = make_package(request.path, request.from_version).files
    return Manifest.of([_entry(each) for each in files]).digest


def _entry(each: SourceFile) -> FileEntry:
    if isinstance(each.source, bytes):
        found = len(each.source), hashlib.sha256(each.source).hexdigest()
    else:
        found = hash_file(each.source)
    return FileEntry(each.path, *found)


def _imported(store: Store, name: str) -> dict[str, VersionRecord]:
    """Versions of a model by where they were imported from, the latest of each that has bytes."""
    try:
        summaries = store.versions(name)
    except UnknownEntryError:  # or all of them were removed
        return {}
    kept = (each for each in summaries if each.status != VersionStatus.REMOVED)
    found = [store.show(Reference(name, each.version)) for each in kept]
    return {record.tags[ORIGIN]: record for record in reversed(found) if ORIGIN in record.tags}


def triton_versions(root: Path, names: Mapping[str, str]) -> Iterator[Found]:
    """Every version of every model of a repository as Triton serves it, oldest first.

    Args:
        root: of the repository.
        names: of the models to import, and what they are called here; empty = all, as there.

    Raises:
        RefusedError: there is no such model, or none at all.
        StoreUnavailableError: the repository cannot be read.
    """
    try:
        models = [each.name for each in sorted(root.iterdir()) if _is_model(each)]
    except OSError as error:
        raise os_failure(f"cannot read '{root}'", error) from error
    unknown = [f"'{root}' has no model '{name}'" for name in names if name not in models]
    if unknown or not models:
        raise RefusedError(*(unknown or [f"'{root}' has no models: is it a repository?"]))
    for model in models:
        if names and model not in names:
            continue
        numbers = sorted(int(each.name) for each in (root / model).iterdir() if _is_version(each))
        if not numbers:
            yield Found(f"triton:{model}", None, "it has no versions")
        for number in numbers:
            request = PushRequest(
                name=names.get(model, model),
                path=root / model,
                from_version=number,
                imported=Imported(),
            )
            yield Found(f"triton:{model}@{number}", request)


def _is_model(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_version(path: Path) -> bool:
    return path.is_dir() and _NUMBER.fullmatch(path.name) is not None
