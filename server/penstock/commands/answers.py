"""`penstock why`, `penstock audit` and `penstock lineage`: the store answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.commands._connection import Connection, with_connection
from penstock.commands._failure import (
    EXIT_FAILED,
    CommandError,
    client_errors,
    made,
    os_reason,
)
from penstock.commands._store import Json, StoreUrl, Version, parse_reference, store_at

if TYPE_CHECKING:
    from penstock.store.answers import Answer, Held, Verdict
    from penstock.store.records import VersionRecord
    from penstock.store.store import Store

_DIGEST = "penstock_digest"
_TIMEOUT_S = 60.0


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("why")(why)
    app.command("audit")(with_connection(audit))
    app.command("lineage")(lineage)


def why(version: Version, store: StoreUrl = "", as_json: Json = False) -> None:
    """Answer on one page: whose model, which binary, features, code and data; what is missing.

    The stored bytes are hashed anew.
    """
    reference = parse_reference(version)
    with store_at(store) as opened:
        from penstock.store.answers import explain, servers_of
        from penstock.store.database import now_ms
        from penstock.store.records import Reference

        record = opened.show(reference)
        exact = Reference(record.model, record.version)
        found = opened.verify(exact)
        record = opened.show(exact)
        now = now_ms()
        answers = explain(record, _before(opened, record), found.faults, now_ms=now)
    if as_json:
        from penstock.commands._render import print_json

        facts = {"reference": record.reference, "digest": record.digest, "status": record.status}
        servers = [asdict(each) for each in servers_of(record, now)]
        print_json({**facts, "answers": [asdict(each) for each in answers], "servers": servers})
    else:
        typer.echo(_page(record, answers))


def _before(store: Store, record: VersionRecord) -> VersionRecord | None:
    from penstock.store.failures import UnknownEntryError
    from penstock.store.records import Reference

    with suppress(UnknownEntryError):
        if record.version > 1:
            return store.show(Reference(record.model, record.version - 1))
    return None


def _page(record: VersionRecord, answers: Sequence[Answer]) -> str:
    aliases = f" ({', '.join(record.aliases)})" if record.aliases else ""
    status = record.status.lower() + (f": {record.reason}" if record.reason else "")
    lines = [f"{record.reference}{aliases}, {status}"]
    for number, answer in enumerate(answers, 1):
        lines += ["", f"{number}. {answer.question}"]
        lines += [f"   {each}" for each in answer.known]
        lines += [f"   MISSING: {each}" for each in answer.missing]
    return "\n".join(lines)


def audit(
    connection: Connection,
    server: Annotated[
        str, typer.Argument(metavar="[SERVER]", help="HOST:PORT; else that of --url.")
    ] = "",
    environment: Annotated[
        str, typer.Option("--environment", metavar="ENV", help="That it should serve.")
    ] = "",
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Compare what a running server holds with what the store says should be there.

    The server's digests are of the bytes that it loaded, computed as it loaded them. Exits 1 if
    anything differs.
    """
    to = replace(connection, url=server) if server else connection
    with store_at(store) as opened:
        found = audit_server(to, opened, environment)
    if as_json:
        from penstock.commands._render import print_json

        print_json(asdict(found))
    else:
        print_audit(found, environment)
    raise typer.Exit(0 if found.is_right else EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit of a server came to.

    Attributes:
        held: of each version that it serves, what the store says.
        missing: NAME@VERSION that the environment serves and the server does not.
    """

    held: list[Verdict]
    missing: list[str]

    @property
    def is_right(self) -> bool:
        """Whether the server holds what it should, and nothing else."""
        return not self.missing and not any(each.faults for each in self.held)


def audit_server(to: Connection, store: Store, environment: str) -> Audited:
    """Asks a server what it holds, and the store what should be there.

    Args:
        to: the server.
        store: open.
        environment: that the server should serve; "" = whichever.

    Raises:
        CommandError: the server does not answer.
        StoreError: the store cannot be read.
    """
    from penstock.store import answers
    from penstock.store.failures import UnknownEntryError
    from penstock.store.records import Reference

    verdicts = []
    held = _held(to)
    for each in held:
        record: VersionRecord | None = None
        with suppress(UnknownEntryError):
            record = store.show(Reference(each.model, each.version))
        verdicts.append(answers.audit(each, record, environment))
    return Audited(verdicts, _missing(store, environment, held) if environment else [])


def print_audit(found: Audited, environment: str) -> None:
    """Prints it as a table."""
    from penstock.commands._render import print_table

    rows = [
        [
            f"{each.model}@{each.version}",
            each.held[:19],
            each.stored[:19],
            ", ".join(each.environments),
            "; ".join(each.faults) or "ok",
        ]
        for each in found.held
    ]
    rows += [[each, "", "", environment, "it is not served"] for each in found.missing]
    print_table(["version", "server has", "store has", "serves in", "verdict"], rows)


def _held(to: Connection) -> list[Held]:
    from penstock.store.answers import Held
    from penstock_client import Client

    held = []
    with (
        client_errors(to.url),
        made(lambda: Client(to.url, timeout_s=_TIMEOUT_S, **to.settings)) as client,
    ):
        for entry in client.repository_index(ready_only=True):
            config = client.model_config(entry.name, entry.version)
            told = config.get("parameters", {}).get(_DIGEST, {})
            digest = str(told.get("string_value", ""))
            held.append(Held(entry.name, int(entry.version), digest))
    return held


def _missing(store: Store, environment: str, held: Sequence[Held]) -> list[str]:
    """What the environment serves and the server does not."""
    there = {(each.model, each.version) for each in held}
    wanted = []
    for desired in store.desired(environment)[1]:
        each = desired.target if desired.target.status == "SERVING" else desired.fallback
        if each is not None and (each.model, each.version) not in there:
            wanted.append(f"{each.model}@{each.version}")
    return wanted


def lineage(
    version: Version,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw it there; - is stdout.")
    ] = None,
    store: StoreUrl = "",
    as_json: Json = False,
) -> None:
    """Draw what a version was made of, what came of it and where it serves."""
    reference = parse_reference(version)
    with store_at(store) as opened:
        from penstock.store.failures import UnknownEntryError
        from penstock.store.graph import as_svg, as_text, draw_lineage
        from penstock.store.records import Reference

        def parent_of(model: str, number: int) -> VersionRecord | None:
            with suppress(UnknownEntryError):
                return opened.show(Reference(model, number))
            return None

        record = opened.show(reference)
        graph = draw_lineage(record, parent_of, opened.children(record))
    if as_json:
        from penstock.commands._render import print_json

        edges = [{"from": source.title, "to": target.title} for source, target in graph.edges]
        print_json({"nodes": [asdict(node) for node in graph.nodes], "edges": edges})
        return
    if svg is None or str(svg) == "-":
        typer.echo(as_svg(graph) if svg else as_text(graph))
        return
    try:
        svg.write_text(as_svg(graph), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {svg}: {os_reason(error)}") from None
    typer.echo(f"wrote {svg}")
