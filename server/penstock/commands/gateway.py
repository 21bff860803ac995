"""`penstock gateway`: HTTP in front of a fleet of servers."""

from __future__ import annotations

import os

import typer

from penstock.commands._failure import EXIT_USAGE, report
from penstock.commands._flags import Texts, given_settings, with_flags
from penstock.errors import ConfigError
from penstock.gateway.config import GatewayConfig
from penstock.setting import fields_of, read_texts


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("gateway")(with_flags(_gateway, fields_of(GatewayConfig)))


def _gateway(flags: Texts) -> None:
    """Serve HTTP in front of one or more servers' gRPC.

    Requests go to the server that is ready and has the least to do; while none can be reached
    they wait, within bounds. Every setting is also an environment variable: --upstream is
    PENSTOCK_UPSTREAM.
    """
    fields = fields_of(GatewayConfig)
    try:
        config = read_texts(GatewayConfig, given_settings(flags, os.environ, fields=fields))
    except ConfigError as error:
        report(error.faults)
        raise typer.Exit(EXIT_USAGE) from None
    from penstock.gateway.standalone import run

    raise typer.Exit(run(config))
