"""`penstock list|show|diff|log|verify|tag|alias|archive|rm` and `penstock store`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands._failure import EXIT_FAILED, CommandError
from penstock.commands._store import (
    Json,
    Name,
    StoreUrl,
    Version,
    deployment_line,
    moment,
    parse_reference,
    record_document,
    size,
    store_at,
    store_errors,
)
from penstock.commands.push import read_pairs

if TYPE_CHECKING:
    from penstock.store.records import VersionRecord, VersionSummary

Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="At most so many.")]

_KEPT_S = 7 * 86400
"""Of what no version needs: another database may, of which this one is an older copy."""


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    for name, command in (
        ("list", list_models),
        ("show", show),
        ("diff", diff),
        ("log", log),
        ("verify", verify),
        ("tag", tag),
        ("alias", alias),
        ("archive", archive),
        ("rm", remove),
    ):
        app.command(name)(command)
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("upgrade")(upgrade)
    group.command("clean")(clean)
    app.add_typer(group, name="store", help="Upkeep of the model store.")


def list_models(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Its versions.")] = "",
    store: StoreUrl = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List models, or the versions of one."""
    with store_at(store) as opened:
        found = opened.versions(name, limit) if name else opened.models()
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json([each._asdict() for each in found])
        return
    columns = ["model", "version", "status", "aliases", "serves in", "owner", "backend", "size"]
    print_table([*columns, "pushed", "digest"], [_row(each) for each in found])


def _row(each: VersionSummary) -> list[str]:
    return [
        each.model,
        str(each.version),
        each.status,
        ", ".join(each.aliases),
        ", ".join(each.environments),
        each.owner,
        each.backend,
        size(each.size_bytes),
        moment(each.created_ms),
        each.digest[:19],
    ]


def show(version: Version, store: StoreUrl = "", as_json: Json = False) -> None:
    """Show everything that is known of a version."""
    reference = parse_reference(version)
    with store_at(store) as opened:
        record = opened.show(reference)
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json(record_document(record))
    else:
        print_table(["", record.reference], [list(pair) for pair in facts_of(record)])


def facts_of(record: VersionRecord) -> Iterator[tuple[str, str]]:
    """Everything known of a version as lines of a table."""
    yield "digest", record.digest
    yield "status", record.status + (f": {record.reason}" if record.reason else "")
    yield "pushed", f"{moment(record.created_ms)} by {record.creator}"
    for name in ("owner", "team", "description", "license", "backend", "source_format"):
        if getattr(record, name):
            yield name.replace("_", " "), getattr(record, name)
    yield "aliases", ", ".join(record.aliases)
    for link in record.links:
        parts = (link.name, link.revision, link.uri if link.uri != link.name else "", link.digest)
        more = [f"{key} {value}" for key, value in link.details.items() if value not in ("", False)]
        yield link.kind, "  ".join([*filter(None, parts), *more])
    for metric in record.metrics:
        on = f" on {metric.dataset} {metric.dataset_digest}" if metric.dataset else ""
        yield "metric", f"{metric.name} = {metric.value:g}{on}"
    for kind in ("inputs", "outputs"):
        for tensor in record.signature.get(kind, ()):
            yield kind[:-1], f"{tensor['name']}  {tensor['datatype']} {tensor['shape']}"
    for golden in record.goldens:
        yield "golden", golden.name
    for key, value in record.tags.items():
        yield "tag", f"{key}={value}"
    for name, fact in record.runtime.items():
        yield name, str(fact)
    if record.requirements:
        yield "requirements", ", ".join(record.requirements)
    for entry in record.files:
        yield "file", f"{entry.path}  {size(entry.size_bytes)}  {entry.sha256[:12]}"
    for deployment in record.deployments:
        yield "deployment", f"{moment(deployment.requested_ms)}  {deployment_line(deployment)}"


def diff(
    old: Version,
    new: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="What to compare it with.")],
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Show what differs between two versions, and whether the second may replace the first."""
    first, second = parse_reference(old), parse_reference(new)
    with store_at(store) as opened:
        before, after = opened.show(first), opened.show(second)
        from penstock.store.signature import breaking_changes

        breaking = breaking_changes(before.signature, after.signature)
    changes = list(_changes(before, after))
    from penstock.commands._render import print_json, print_table

    if as_json:
        rows = [{"what": what, "old": a, "new": b} for what, a, b in changes]
        print_json({"changes": rows, "breaking": breaking})
        return
    print_table(["", before.reference, after.reference], [list(row) for row in changes])
    for fault in breaking:
        typer.echo(f"breaking: {fault}")
    if not breaking and before.signature and after.signature:
        typer.echo(
            f"{after.reference} may replace {before.reference}: nothing its clients use is gone"
        )


def _changes(before: VersionRecord, after: VersionRecord) -> Iterator[tuple[str, str, str]]:
    """Facts of which one version has what the other has not."""
    unlike = ("digest", "status", "pushed", "aliases", "deployment", "tag")
    sides = [[fact for fact in facts_of(each) if fact[0] not in unlike] for each in (before, after)]
    if before.digest != after.digest:
        yield "digest", before.digest, after.digest
    for what in dict.fromkeys(name for side in sides for name, _ in side):
        old, new = ([text for name, text in side if name == what] for side in sides)
        gone = [text for text in old if text not in new]
        come = [text for text in new if text not in old]
        if gone or come:
            yield what, "\n".join(gone), "\n".join(come)
        elif old != new:
            yield f"{what} order", ", ".join(old), ", ".join(new)


def log(
    what: Annotated[str, typer.Argument(metavar="[NAME[@VERSION]]", help="Only of it.")] = "",
    environment: Annotated[str, typer.Option("--in", metavar="ENV", help="Only there.")] = "",
    store: StoreUrl = "",
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """Show what happened, oldest first."""
    reference = parse_reference(what) if what else None
    with store_at(store) as opened:
        version = None
        if reference is not None and (reference.version or reference.alias):
            version = opened.resolve(reference)
        events = opened.log(
            model=reference.model if reference else "",
            version=version,
            environment=environment,
            limit=limit,
        )
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json([asdict(event) for event in events])
        return
    rows = [
        [
            moment(event.at_ms),
            event.kind,
            event.model + (f"@{event.version}" if event.version else ""),
            event.environment,
            event.actor,
            _details(event.details),
        ]
        for event in events
    ]
    print_table(["time (UTC)", "event", "version", "environment", "who", "details"], rows)


def _details(details: Any) -> str:
    shown = (f"{key} {value}" for key, value in details.items() if value not in ("", None, False))
    return ", ".join(shown)


def verify(
    versions: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME[@VERSION]]...", help="Else all.")
    ] = None,
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Hash the stored bytes anew; what was damaged is put aside. Exits 1 if anything was."""
    chosen = [parse_reference(text) for text in versions or ()]
    with store_at(store) as opened:
        from penstock.store.records import Reference

        names = [each.model for each in opened.models()] if not chosen else []
        whole = [each.model for each in chosen if each.version is None and not each.alias]
        references = [each for each in chosen if each.model not in whole]
        for name in [*names, *whole]:
            references += [Reference(name, each.version) for each in opened.versions(name)]
        found = [opened.verify(reference) for reference in references]
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json([asdict(each) for each in found])
    else:
        rows = [[each.reference, each.status, "; ".join(each.faults) or "ok"] for each in found]
        print_table(["version", "status", "bytes"], rows)
    raise typer.Exit(EXIT_FAILED if any(each.faults for each in found) else 0)


def tag(
    version: Version,
    tags: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY= takes it away.")],
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Set tags of a version."""
    reference = parse_reference(version, needs_pointer=True)
    wanted = {key: value or None for key, value in read_pairs("tag", tags).items()}
    with store_at(store) as opened:
        from penstock.store.capture import scrubbed

        clean = {key: value and scrubbed(value) for key, value in wanted.items()}
        record = opened.tag(reference, clean)
    _show_changed(record, as_json, ", ".join(f"{k}={v}" for k, v in record.tags.items()))


def alias(
    name: Name,
    alias_name: Annotated[str, typer.Argument(metavar="ALIAS", help="champion, ...")],
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=1, help="Where it points.")
    ] = None,
    remove_it: Annotated[bool, typer.Option("--remove", help="Take it away.")] = False,
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Point an alias to a version. Environments that follow the alias are asked to serve it."""
    if (version is None) != remove_it:
        raise CommandError("give either the VERSION that the alias points to, or --remove")
    with store_errors():
        from penstock.store.records import check_name

        check_name("model", name)
    with store_at(store) as opened:
        before = opened.alias(name, alias_name, version)
        followers = [each.environment for each in opened.following(name, alias_name)]
    from penstock.commands._render import print_json

    if as_json:
        row = {"model": name, "alias": alias_name, "version": version, "was": before}
        print_json({**row, "followed_by": followers})
        return
    was = f" (was {before})" if before else ""
    typer.echo(f"{name}@{alias_name}: {version if version else 'removed'}{was}")
    if version:
        places = ", ".join(followers)
        typer.echo(f"followed by {places}" if places else "no environment follows it")


def archive(
    version: Version,
    undo: Annotated[bool, typer.Option("--undo", help="Let it be deployed again.")] = False,
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Keep a version from being deployed; its bytes stay."""
    reference = parse_reference(version, needs_pointer=True)
    with store_at(store) as opened:
        record = opened.archive(reference, undo=undo)
    _show_changed(record, as_json, record.status.lower())


def remove(version: Version, store: StoreUrl = "", as_json: Json = False) -> None:
    """Remove the bytes of a version. What is known of it stays, and its number is not used again.

    One that is deployed, or that an alias points to, is refused.
    """
    reference = parse_reference(version, needs_pointer=True)
    with store_at(store) as opened:
        record = opened.remove(reference)
    _show_changed(record, as_json, record.status.lower())


def upgrade(store: StoreUrl = "") -> None:
    """Bring the database of an older store to this version's tables."""
    import os

    from penstock.commands._store import VARIABLE

    with store_errors():
        from penstock.store.capture import user
        from penstock.store.store import Store

        opened = Store(store or os.environ.get(VARIABLE, ""), actor=user())
        try:
            opened.upgrade()
        finally:
            opened.close()
    typer.echo(f"{opened.shown}: up to date")


def clean(
    store: StoreUrl = "",
    is_all: Annotated[
        bool, typer.Option("--all", help="Also what was written in the last 7 days.")
    ] = False,
) -> None:
    """Remove bytes that no version needs, as pushes leave them that were killed.

    A copy of the database does not know what was pushed since it was made: never clean from one.
    """
    with store_at(store) as opened:
        count = opened.clean(0 if is_all else _KEPT_S)
    typer.echo(f"{count} blob{'s' if count != 1 else ''} removed")


def _show_changed(record: VersionRecord, as_json: bool, text: str) -> None:
    from penstock.commands._render import print_json

    if as_json:
        print_json(record_document(record))
    else:
        typer.echo(f"{record.reference}: {text}")
