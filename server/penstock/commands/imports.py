"""`penstock import`: a Triton repository or an MLflow registry into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.commands._failure import EXIT_FAILED
from penstock.commands._store import Json, StoreUrl, store_at
from penstock.commands._store_progress import bytes_bar

if TYPE_CHECKING:
    from penstock.store.importing import Found, Outcome

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where it is.")]
Registry = Annotated[
    str, typer.Argument(metavar="URL|DIR", help="http://HOST:PORT of the server, or a directory.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="NAME[=OURS]", help="Only it, called OURS here; repeatable; else all."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("triton")(triton)
    group.command("mlflow")(mlflow)
    app.add_typer(group, name="import", help="Bring all versions of another registry.")


def triton(
    directory: Directory, store: StoreUrl = "", models: Models = None, as_json: Json = False
) -> None:
    """Import a model repository: every version of every model.

    Done again it brings what is new. Exits 1 if a version was refused; the others are there.
    """

    def find(names: Mapping[str, str]) -> Iterable[Found]:
        from penstock.store.importing import triton_versions

        return triton_versions(directory, names)

    _import(find, store, models or [], as_json)


def mlflow(
    registry: Registry, store: StoreUrl = "", models: Models = None, as_json: Json = False
) -> None:
    """Import an MLflow registry: a tracking server's, or that of a file store (mlruns).

    Versions come with aliases, tags, description, run, parameters, metrics, data and code. Done
    again it brings what is new, and points aliases anew. Exits 1 if a version was refused.
    Credentials of a server are MLflow's: MLFLOW_TRACKING_TOKEN, or .._USERNAME and .._PASSWORD.
    """

    def find(names: Mapping[str, str]) -> Iterable[Found]:
        if "://" in registry:
            from penstock.store.mlflow_client import TrackingServer
            from penstock.store.mlflow_server import server_versions

            return server_versions(TrackingServer(registry), names)
        from penstock.store.mlflow_registry import mlflow_versions

        return mlflow_versions(Path(registry), names)

    _import(find, store, models or [], as_json)


def _import(
    find: Callable[[Mapping[str, str]], Iterable[Found]],
    store: str,
    models: list[str],
    as_json: bool,
) -> None:
    names = {}
    for text in models:
        name, _, ours = text.partition("=")
        names[name] = ours or name
    with store_at(store, may_create=True) as opened:
        from penstock.store.importing import import_found
        from penstock.stored import inspect_model

        outcomes = list(import_found(opened, find(names), inspect_model, bytes_bar))
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json([asdict(each) for each in outcomes])
    else:
        print_table(["from", "version", ""], [_row(each) for each in outcomes])
    raise typer.Exit(EXIT_FAILED if any(each.fault for each in outcomes) else 0)


def _row(outcome: Outcome) -> list[str]:
    said = outcome.fault or ("imported" if outcome.is_new else "was there")
    return [outcome.origin, outcome.reference, said]
