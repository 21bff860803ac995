"""`penstock`: the commands put together."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from penstock import __version__
from penstock.commands import (
    answers,
    batch,
    build_engine,
    check,
    demo,
    deploy,
    gateway,
    imports,
    infer,
    make_key,
    models,
    push,
    scaler,
    serve,
    store,
)
from penstock.commands._failure import CommandGroup

app = typer.Typer(
    name="penstock",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes longer to import than the rest of a start
    pretty_exceptions_enable=False,
    help="Serve machine-learning models over the Open Inference (KServe v2) gRPC protocol.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version


serve.add_to(app)
gateway.add_to(app)
scaler.add_to(app)
infer.add_to(app)
batch.add_to(app)
models.add_to(app)
make_key.add_to(app)
check.add_to(app)
build_engine.add_to(app)
demo.add_to(app)
push.add_to(app)
imports.add_to(app)
deploy.add_to(app)
store.add_to(app)
answers.add_to(app)


def main() -> None:
    """Runs the command line and exits."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that knows ASCII only is no failure
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="penstock")
