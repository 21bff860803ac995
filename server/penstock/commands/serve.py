"""`penstock serve`: the server."""

from __future__ import annotations

import os

import typer

from penstock.commands._failure import EXIT_USAGE, report
from penstock.commands._flags import Texts, given_settings, with_flags
from penstock.config import ServerConfig
from penstock.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve")(with_flags(_serve))


def _serve(flags: Texts) -> None:
    """Serve the models of one or more repositories.

    Every setting is also an environment variable: --grpc-port is PENSTOCK_GRPC_PORT. SIGTERM
    drains: the server turns unready, serves on for the grace time, finishes what is under way and
    exits 0. SIGINT does the same without the grace time; a second signal ends it at once. SIGUSR2
    starts the same command again with the listening sockets, and drains once that is ready.
    """
    try:
        config = ServerConfig.from_text(given_settings(flags, os.environ))
    except ConfigError as error:
        report(error.faults)
        raise typer.Exit(EXIT_USAGE) from None
    from penstock.serving import run  # what serves is imported once the settings are right

    raise typer.Exit(run(config))
