"""`penstock scaler`: advice on how many replicas there should be."""

from __future__ import annotations

import os

import typer

from penstock.commands._failure import EXIT_USAGE, report
from penstock.commands._flags import Texts, given_settings, with_flags
from penstock.errors import ConfigError
from penstock.scaling.config import ScalerConfig
from penstock.setting import fields_of, read_texts


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("scaler")(with_flags(_scaler, fields_of(ScalerConfig)))


def _scaler(flags: Texts) -> None:
    """Watch a fleet of servers and tell KEDA how many there should be.

    Asks each server's metrics, adds them up, and answers KEDA's external scaler protocol. Every
    setting is also an environment variable: --replica is PENSTOCK_REPLICA.
    """
    fields = fields_of(ScalerConfig)
    try:
        config = read_texts(ScalerConfig, given_settings(flags, os.environ, fields=fields))
    except ConfigError as error:
        report(error.faults)
        raise typer.Exit(EXIT_USAGE) from None
    from penstock.scaler import run

    raise typer.Exit(run(config))
