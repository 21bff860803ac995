"""`penstock make-key`: a fresh API key, and what the file of keys says of it."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Annotated

import typer

from penstock.access_settings import GROUPS

_KEY_BYTES = 32


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("make-key")(make_key)


def make_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help=f"Group of calls: all, {', '.join(GROUPS)}; repeatable."),
    ] = None,
) -> None:
    """Make a random API key and its entry for the file of --api-keys-file.

    The key is shown this once; the entry holds its SHA-256 only. Without --group it may infer and
    ask for health and metadata.
    """
    groups = group or ["health", "metadata", "inference"]
    unknown = [each for each in groups if each not in ("all", *GROUPS)]
    if unknown:
        raise typer.BadParameter(f"--group: expected all, {', '.join(GROUPS)}, got '{unknown[0]}'")
    key = secrets.token_urlsafe(_KEY_BYTES)
    digest = hashlib.sha256(key.encode()).hexdigest()
    typer.echo(f"key: {key}")
    typer.echo(f"entry: {json.dumps({'name': name, 'sha256': digest, 'groups': groups})}")
