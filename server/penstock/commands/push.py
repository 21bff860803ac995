"""`penstock push` and `penstock fetch`: a model into the store, and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.commands._failure import CommandError
from penstock.commands._store import (
    Json,
    Name,
    StoreUrl,
    Version,
    parse_reference,
    record_document,
    size,
    store_at,
)
from penstock.commands._store_progress import bytes_bar

Source = Annotated[
    Path, typer.Argument(metavar="PATH", help="A model file, a directory, or MLflow's directory.")
]
Owner = Annotated[str, typer.Option("--owner", metavar="WHO", help="Who answers for it.")]
Team = Annotated[str, typer.Option("--team", metavar="NAME", help="Their team.")]
Description = Annotated[str, typer.Option("--description", metavar="TEXT", help="What it does.")]
License = Annotated[str, typer.Option("--license", metavar="NAME", help="Its licence.")]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=URI@DIGEST", help="Data it was made from; repeatable."),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature", metavar="NAME:VERSION", help="Features in the model's order; repeatable."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="NAME=VALUE@DATASET", help="Measured on a --data; repeatable."
    ),
]
Run = Annotated[str, typer.Option("--run", metavar="ID[=URL]", help="Training run.")]
Parent = Annotated[
    str, typer.Option("--parent", metavar="NAME@VERSION", help="What it was made from.")
]
Recipe = Annotated[str, typer.Option("--recipe", metavar="TEXT", help="How, from the parent.")]
Goldens = Annotated[
    list[Path] | None,
    typer.Option(
        "--golden",
        metavar="FILE.json",
        help="Requests with the answers it must give before it takes traffic; repeatable.",
    ),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Repeatable.")]
Aliases = Annotated[
    list[str] | None,
    typer.Option("--alias", metavar="NAME", help="Point to it at once; repeatable."),
]
FromVersion = Annotated[
    int | None,
    typer.Option("--from-version", min=1, help="Of a directory with versions; else the latest."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse it without owner, code and digests of data.")
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("push")(push)
    app.command("fetch")(fetch)


def push(
    name: Name,
    path: Source,
    store: StoreUrl = "",
    owner: Owner = "",
    team: Team = "",
    description: Description = "",
    license_name: License = "",
    data: Data = None,
    features: Features = None,
    metrics: Metrics = None,
    run: Run = "",
    parent: Parent = "",
    recipe: Recipe = "",
    goldens: Goldens = None,
    tags: Tags = None,
    aliases: Aliases = None,
    from_version: FromVersion = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Store a model with everything that is known of it.

    The model is loaded, not run, to learn its interface; one that would not load is refused. The
    git commit of PATH, or else of this directory, is recorded. The first push makes the store.
    """
    with store_at(store, may_create=True) as opened:
        from penstock.store.pushing import PushRequest, push_model
        from penstock.stored import inspect_model

        request = PushRequest(
            name=name,
            path=path,
            owner=owner,
            team=team,
            description=description,
            license=license_name,
            data=data or (),
            features=features or (),
            metrics=metrics or (),
            run=run,
            parent=parent,
            recipe=recipe,
            goldens=goldens or (),
            tags=read_pairs("--tag", tags or ()),
            aliases=aliases or (),
            from_version=from_version,
            strict=strict,
        )
        record = push_model(opened, request, inspect_model, Path.cwd(), bytes_bar)
    if as_json:
        from penstock.commands._render import print_json

        print_json(record_document(record))
        return
    typer.echo(f"{record.reference}  {record.digest}  {size(record.size_bytes)}")


def fetch(
    version: Version,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A model repository; it is made.")
    ],
    store: StoreUrl = "",
) -> None:
    """Bring a version's files to DIR/NAME, checked, as `penstock serve DIR` takes them.

    One that was cut off goes on where it was.
    """
    reference = parse_reference(version)
    with store_at(store) as opened:
        from penstock.store.fetching import fetch_version

        record = opened.show(reference)
        with bytes_bar(record.reference, record.size_bytes) as moved:
            target = fetch_version(opened.artifacts, record, directory, moved)
    typer.echo(f"{record.reference}  {record.digest}  {target}")


def read_pairs(flag: str, texts: list[str] | tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE, several times.

    Raises:
        CommandError: one is none.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise CommandError(f"{flag}: expected KEY=VALUE, got '{text}'")
        pairs[key] = value
    return pairs
