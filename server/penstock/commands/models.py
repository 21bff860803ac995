"""`penstock models`: what a server holds, and loading and unloading it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands._connection import Connection, with_connection
from penstock.commands._failure import CommandError, client_errors, made, os_reason
from penstock.commands.infer import Json, Model, Version

if TYPE_CHECKING:
    from penstock_client import Client, Duration, ModelStatistics, TensorMetadata

Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.001, metavar="SECONDS", help="To wait for the answer."),
]

_TIMEOUT_S = 60.0
_LOAD_TIMEOUT_S = 600.0


def add_to(app: typer.Typer) -> None:
    """Adds the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    for command in (index, load, unload, metadata, config, stats):
        group.command(command.__name__)(with_connection(command))
    app.add_typer(group, name="models", help="What a server holds; load and unload models.")


@contextmanager
def _client(to: Connection, timeout_s: float) -> Iterator[Client]:
    from penstock_client import Client

    with (
        client_errors(to.url),
        made(lambda: Client(to.url, timeout_s=timeout_s, **to.settings)) as client,
    ):
        yield client


def index(
    connection: Connection,
    ready: Annotated[bool, typer.Option("--ready", help="Only what is ready.")] = False,
    as_json: Json = False,
    timeout_s: Timeout = _TIMEOUT_S,
) -> None:
    """List the models with state and reason."""
    from penstock.commands._render import print_json, print_table

    with _client(connection, timeout_s) as client:
        entries = client.repository_index(ready_only=ready)
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        print_table(
            ["model", "version", "state", "reason"],
            [[e.name, e.version, e.state, e.reason] for e in entries],
        )


def load(
    model: Model,
    connection: Connection,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.json", help="Configuration that overrides its own."),
    ] = None,
    timeout_s: Timeout = _LOAD_TIMEOUT_S,
) -> None:
    """Load a model, or load it anew.

    The old version serves until the new one is ready, and on if that one fails to load. The server
    must run with --model-control-mode explicit.
    """
    override = None
    if config_file is not None:
        try:
            override = config_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = os_reason(error) if isinstance(error, OSError) else "it is no text"
            raise CommandError(f"cannot read {config_file}: {reason}") from None
    with _client(connection, timeout_s) as client:
        client.load_model(model, config=override)
    typer.echo(f"loaded {model}")


def unload(
    model: Model,
    connection: Connection,
    dependents: Annotated[
        bool, typer.Option("--unload-dependents", help="Also the models it is made of.")
    ] = False,
    timeout_s: Timeout = _TIMEOUT_S,
) -> None:
    """Unload a model; requests under way are finished.

    The server must run with --model-control-mode explicit.
    """
    with _client(connection, timeout_s) as client:
        client.unload_model(model, unload_dependents=dependents)
    typer.echo(f"unloaded {model}")


def metadata(
    model: Model,
    connection: Connection,
    version: Version = "",
    as_json: Json = False,
    timeout_s: Timeout = _TIMEOUT_S,
) -> None:
    """Show a model's inputs and outputs, and what it runs on."""
    from penstock.commands._render import print_json, print_table

    with _client(connection, timeout_s) as client:
        found = client.model_metadata(model, version)
    if as_json:
        print_json(asdict(found))
        return
    place = f", runs on {found.runs_on}" if found.runs_on else ""
    versions = ", ".join(found.versions)
    typer.echo(f"{found.name}: versions {versions}, platform {found.platform}{place}")
    rows = [
        *(["input", *_tensor(tensor)] for tensor in found.inputs),
        *(["output", *_tensor(tensor)] for tensor in found.outputs),
    ]
    print_table(["", "name", "datatype", "shape"], rows)


def _tensor(tensor: TensorMetadata) -> list[str]:
    return [tensor.name, tensor.datatype, str(list(tensor.shape))]


def config(
    model: Model,
    connection: Connection,
    version: Version = "",
    as_json: Json = False,
    timeout_s: Timeout = _TIMEOUT_S,
) -> None:
    """Show a model's configuration, defaults filled in."""
    from penstock.commands._render import print_json, print_table

    with _client(connection, timeout_s) as client:
        found = client.model_config(model, version)
    if as_json:
        print_json(found)
    else:
        print_table(["field", "value"], [[path, value] for path, value in _flat("", found)])


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The fields of nested messages as dotted paths; empty ones are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else key, item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for at, item in enumerate(value):
            yield from _flat(f"{path}[{at}]", item)
    elif value not in ("", []):
        yield path, str(value)


def stats(
    connection: Connection,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Default: all models.")] = "",
    version: Version = "",
    as_json: Json = False,
    timeout_s: Timeout = _TIMEOUT_S,
) -> None:
    """Show counts, mean times and batch sizes.

    Rows are inferences, runs are executions of the model; times are means per request.
    """
    from penstock.commands._render import print_json, print_table

    with _client(connection, timeout_s) as client:
        found = client.statistics(model, version)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        columns = ["model", "version", "ok", "failed", "rows", "runs", "rows/run"]
        columns += ["total", "queue", "compute"]
        rows = [_statistics(each) for each in found]
        if any(each.memory for each in found):
            columns.append("memory")
            rows = [[*row, _memory(each)] for row, each in zip(rows, found, strict=True)]
        print_table(columns, rows)


def _statistics(found: ModelStatistics) -> list[str]:
    runs = found.execution_count
    counts = (found.success.count, found.fail.count, found.inference_count, runs)
    return [
        found.name,
        found.version,
        *(str(count) for count in counts),
        f"{found.inference_count / runs:.1f}" if runs else "-",
        *(_mean(each) for each in (found.success, found.queue, found.compute_infer)),
    ]


def _memory(found: ModelStatistics) -> str:
    held = (f"{each.type} {each.id}: {each.size_bytes / 2**20:,.0f} MiB" for each in found.memory)
    return ", ".join(held) or "-"


def _mean(duration: Duration) -> str:
    return f"{duration.mean_s * 1e6:.0f} us" if duration.count else "-"
