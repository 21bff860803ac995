"""Imports: whole repositories and registries, version by version, with what they know.

What was imported has the tag `imported`, which says from where: done again, an import brings only
what is new, and points aliases to where the registry points them now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.store.artifacts import Watch, unwatched
from penstock.store.failures import RefusedError, StoreError, StoreUnavailableError
from penstock.store.files import os_failure
from penstock.store.pushing import Imported, Inspection, PushRequest, push_model
from penstock.store.records import Reference
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
    known: dict[str, dict[str, int]] = {}
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
    known: dict[str, int],
    inspect: Callable[[str, Path], Inspection],
    watch: Watch,
) -> Outcome:
    if origin in known:
        for alias in request.aliases:
            store.alias(request.name, alias, known[origin])
        return Outcome(origin, f"{request.name}@{known[origin]}")
    tagged = replace(request, tags={**request.tags, ORIGIN: origin})
    record = push_model(store, tagged, inspect, request.path, watch)
    known[origin] = record.version
    return Outcome(origin, record.reference, is_new=True)


def _imported(store: Store, name: str) -> dict[str, int]:
    """Versions of a model by where they were imported from."""
    if name not in {each.model for each in store.models()}:
        return {}
    found = (store.show(Reference(name, each.version)) for each in store.versions(name))
    return {record.tags[ORIGIN]: record.version for record in found if ORIGIN in record.tags}


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
