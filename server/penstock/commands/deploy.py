"""`penstock deploy`, `rollback` and `undeploy`: what an environment serves."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.commands._failure import CommandError
from penstock.commands._store import (
    Json,
    Name,
    StoreUrl,
    Version,
    deployment_line,
    parse_reference,
    store_at,
    store_errors,
)

if TYPE_CHECKING:
    from penstock.store.records import Deployment
    from penstock.store.store import Store

Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        min=0,
        metavar="SECONDS",
        help="For a server to say how it went; exits 1 if it failed, or none said anything.",
    ),
]
_LOOK_S = 0.1


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("deploy")(deploy)
    app.command("rollback")(rollback)
    app.command("undeploy")(undeploy)


def deploy(
    version: Version,
    environment: Annotated[
        str, typer.Option("--to", metavar="ENV", help="staging, prod, ...; made if not there.")
    ],
    allow_breaking: Annotated[
        bool, typer.Option("--allow-breaking", help="Even if clients would notice.")
    ] = False,
    wait_s: Wait = 0.0,
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Have the servers of an environment serve a version, or follow an alias.

    Servers take it up at once: they fetch, load, warm up and try it beside what serves, and swap.
    If it fails, what served before serves on, and `penstock log` says why.
    """
    reference = parse_reference(version, needs_pointer=True)
    with store_at(store) as opened:
        asked = opened.deploy(reference, environment, allow_breaking=allow_breaking)
        asked = _wait(opened, asked, wait_s)
    _show(asked, wait_s, as_json)


def rollback(
    name: Name,
    environment: Annotated[str, typer.Option("--in", metavar="ENV", help="Where.")],
    wait_s: Wait = 0.0,
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Go back to the version that served before this one."""
    with store_errors():
        from penstock.store.records import check_name

        check_name("model", name)
    with store_at(store) as opened:
        aliases = {each.environment: each.alias for each in opened.environments_of(name)}
        asked = opened.rollback(name, environment)
        asked = _wait(opened, asked, wait_s)
    _show(asked, wait_s, as_json)
    alias = aliases.get(environment)  # of the newest there
    if alias and not as_json:
        unless = "" if asked.status == "SERVING" else ", unless this fails"
        typer.echo(
            f"{environment} no longer follows {alias}{unless}: "
            f"`penstock deploy {name}@{alias} --to {environment}` has it follow again"
        )


def undeploy(
    name: Name,
    environment: Annotated[str, typer.Option("--from", metavar="ENV", help="Where.")],
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Have the servers of an environment serve a model no more; requests at work are finished."""
    with store_errors():
        from penstock.store.records import check_name

        check_name("model", name)
    with store_at(store) as opened:
        asked = opened.undeploy(name, environment)
    if as_json:
        from penstock.commands._render import print_json

        print_json(asdict(asked))
    else:
        typer.echo(deployment_line(asked))


def _wait(store: Store, asked: Deployment, wait_s: float) -> Deployment:
    import threading

    deadline = time.monotonic() + wait_s
    pause = threading.Event()
    while asked.status == "REQUESTED" and time.monotonic() < deadline:
        pause.wait(_LOOK_S)
        asked = store.deployment(asked.id)
    return asked


def _show(asked: Deployment, wait_s: float, as_json: bool) -> None:
    if as_json:
        from penstock.commands._render import print_json

        print_json(asdict(asked))
    elif asked.status in ("REQUESTED", "SERVING"):
        typer.echo(deployment_line(asked))
    if asked.status not in ("REQUESTED", "SERVING"):
        raise CommandError(deployment_line(asked))
    if wait_s and asked.status == "REQUESTED":
        raise CommandError(f"no server said anything within {wait_s:g} s: {deployment_line(asked)}")
