"""`penstock`: the commands put together, each imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.main import get_group

from penstock import __version__
from penstock.commands._failure import CommandGroup

FILES = {
    "serve": ["serve"],
    "gateway": ["gateway"],
    "scaler": ["scaler"],
    "infer": ["infer"],
    "batch": ["batch"],
    "models": ["models"],
    "make_key": ["make-key"],
    "check": ["check"],
    "build_engine": ["build-engine"],
    "demo": ["demo"],
    "push": ["push", "fetch"],
    "imports": ["import"],
    "deploy": ["deploy", "rollback", "undeploy"],
    "store": "list show diff log verify tag alias archive rm store".split(),
    "answers": ["why", "audit", "lineage"],
}
"""The files of this folder that have commands, and which; in the order of --help."""


class Commands(Mapping[str, Any]):
    """The commands by name; those of a file are imported and built when one is asked for.

    All of them together would take longer than the rest of a start.
    """

    def __init__(self) -> None:
        self._file_of = {name: file for file, names in FILES.items() for name in names}
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            some = typer.Typer(rich_markup_mode=None)
            import_module(f"penstock.commands.{self._file_of[name]}").add_to(some)
            self._built |= get_group(some).commands
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


class _Group(CommandGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": Commands()})

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, for which nothing is imported."""
        del ctx
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """None: there is no such command. A KeyError of its file is no such answer."""
        return self.commands[cmd_name] if cmd_name in self.list_commands(ctx) else None


app = typer.Typer(
    name="penstock",
    cls=_Group,
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


def main() -> None:
    """Runs the command line and exits."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that knows ASCII only is no failure
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="penstock")
