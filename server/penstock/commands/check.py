"""`penstock check`: validates repositories without serving them."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.commands._failure import EXIT_FAILED, EXIT_USAGE, report
from penstock.commands._flags import given_settings
from penstock.config import ServerConfig
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.repository.check import CheckReport

_SETTINGS = ("model_repository", "backend_directory", "backend_config", "python_environments")

Repositories = Annotated[
    list[str] | None, typer.Argument(metavar="REPOSITORY", help="Directories of models.")
]
Repeated = Annotated[
    list[str] | None,
    typer.Option("--model-repository", metavar="DIR", help="Directory of models; repeatable."),
]
BackendDirectory = Annotated[
    list[str] | None,
    typer.Option(metavar="DIR", help="Further directory of backend plug-ins; repeatable."),
]
BackendConfig = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="BACKEND,KEY=VALUE: an option of a backend; repeatable."),
]
Environments = Annotated[
    str | None, typer.Option(metavar="DIR", help="Directory of Python models' environments.")
]
Prepare = Annotated[
    bool,
    typer.Option("--prepare", help="First build the environments of Python models' lock files."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("check")(check)


def check(
    repositories: Repositories = None,
    model_repository: Repeated = None,
    backend_directory: BackendDirectory = None,
    backend_config: BackendConfig = None,
    python_environments: Environments = None,
    prepare: Prepare = False,
    as_json: Json = False,
) -> None:
    """Validate repositories without serving them.

    Every model file is opened, nothing is run, but for what Python files do when imported. Prints
    the models found, and on stderr every fault with its file and field; exits 1 if there is one, or
    no model at all.
    """
    flags = {
        "repositories": repositories,
        "model_repository": model_repository,
        "backend_directory": backend_directory,
        "backend_config": backend_config,
        "python_environments": python_environments,
    }
    given = {name: values for name, values in flags.items() if values}
    try:
        config = ServerConfig.from_text(given_settings(given, os.environ, _SETTINGS))
    except ConfigError as error:
        report(error.faults)
        raise typer.Exit(EXIT_USAGE) from None
    found = _check(config, prepare)
    _show(found, as_json)
    faults = found.faults if found.models else [_no_models(config)]
    report(faults)
    raise typer.Exit(EXIT_FAILED if faults else 0)


def _no_models(config: ServerConfig) -> str:
    places = ", ".join(f"'{path}'" for path in config.model_repository)
    return f"no model found in {places}: expected a directory per model, with versions in it"


def _check(config: ServerConfig, prepare: bool) -> CheckReport:
    from penstock.app import check as check_models

    return check_models(config, prepare=prepare)


def _show(found: CheckReport, as_json: bool) -> None:
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json([asdict(model) for model in found.models])
        return
    rows = [
        [
            model.name,
            ", ".join(str(version) for version in model.versions),
            model.backend,
            model.runs_on,
            _verdict(len(model.faults)),
        ]
        for model in found.models
    ]
    print_table(["model", "versions", "backend", "runs on", "verdict"], rows)


def _verdict(faults: int) -> str:
    return "ok" if faults == 0 else "1 fault" if faults == 1 else f"{faults} faults"
