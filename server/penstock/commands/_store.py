"""What the commands of the store share: where it is, and how its values are shown."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands._failure import CommandError

if TYPE_CHECKING:
    from penstock.store.records import Deployment, Reference, VersionRecord
    from penstock.store.store import Store

__all__ = ["Json", "StoreUrl", "parse_reference", "store_at"]

VARIABLE = "PENSTOCK_STORE"

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        help=f"Directory, sqlite:///FILE or postgresql://...; else {VARIABLE}.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="NAME@3 or NAME@alias.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]


@contextmanager
def store_at(url: str, *, may_create: bool = False) -> Iterator[Store]:
    """The store of --store or PENSTOCK_STORE.

    Raises:
        CommandError: it cannot do what was asked, one fault per line.
    """
    with store_errors():
        from penstock.store.store import open_store

        with open_store(url or os.environ.get(VARIABLE, ""), may_create=may_create) as store:
            yield store


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns what the store raises into a CommandError."""
    try:
        from penstock.store.failures import StoreError
    except ImportError as error:
        raise CommandError(_missing(error)) from None
    try:
        yield
    except ImportError as error:
        raise CommandError(_missing(error)) from None
    except StoreError as error:
        raise CommandError(*error.lines) from None


def parse_reference(text: str, *, needs_pointer: bool = False) -> Reference:
    """What NAME, NAME@3 or NAME@alias means.

    Raises:
        CommandError: it means nothing, or only a name where a version is needed.
    """
    with store_errors():
        from penstock.store.records import Reference

        reference = Reference.parse(text)
    if needs_pointer and reference.version is None and not reference.alias:
        raise CommandError(f"'{text}': say which version, as {text}@3 or {text}@champion")
    return reference


def moment(at_ms: int | None) -> str:
    """A time for people, in UTC."""
    if at_ms is None:
        return ""
    moment = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def size(size_bytes: int) -> str:
    """A size for people."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def record_document(record: VersionRecord) -> dict[str, Any]:
    """A version for programs."""
    document = asdict(record)
    del document["id"]
    return {**document, "size_bytes": record.size_bytes, "reference": record.reference}


def deployment_line(deployment: Deployment) -> str:
    """A deployment in a few words."""
    alias = f" (follows {deployment.alias})" if deployment.alias else ""
    waiting = (
        f"{server} waits: {reason}"
        for server, status, reason, _, _ in deployment.reports
        if status == "WAITING"
    )
    reason = "; ".join(filter(None, (deployment.reason, *waiting)))
    reason = f": {reason}" if reason else ""
    return (
        f"{deployment.model}@{deployment.version} in {deployment.environment}{alias}: "
        f"{deployment.status.lower()}{reason}"
    )


def _missing(error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    return f"the model store needs {package}: pip install 'penstock[store]'"
