"""`penstock infer`: rows from files to a server, answers to the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands import _inputs, _send
from penstock.commands._connection import Connection, with_connection
from penstock.commands._failure import CommandError, client_errors, made, os_reason
from penstock.commands._interface import ModelInterface, model_interface

if TYPE_CHECKING:
    from penstock_client import AsyncClient, InferResult, ModelMetadata

_LONG_INPUT = 16  # requests from which on a progress bar is shown

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE",
        help=".npy, .npz, .json, .csv or an image; .npz and .json may name several inputs.",
    ),
]
Named = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=FILE", help="A file for one input; repeatable."),
]
Version = Annotated[
    str, typer.Option("--model-version", metavar="N", help="Version; default latest.")
]
BatchSize = Annotated[
    int, typer.Option(min=0, metavar="N", help="Rows per request; 0 = the most the model takes.")
]
InFlight = Annotated[int, typer.Option(min=1, metavar="N", help="Requests under way at a time.")]
Priority = Annotated[
    int, typer.Option(min=0, metavar="N", help="1 is most urgent; 0 = the model's default.")
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.001, metavar="SECONDS", help="For each request."),
]
QueueTimeout = Annotated[
    float,
    typer.Option(
        "--queue-timeout",
        min=0,
        metavar="SECONDS",
        help="How long a request may queue in the server; 0 = the model's default.",
    ),
]
Classes = Annotated[
    int, typer.Option(min=0, metavar="K", help="Show the K best classes instead of values.")
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="X", help="Multiply pixels of images (0 to 255): a number or a fraction, as 1/255."
    ),
]
Round = Annotated[
    bool, typer.Option("--round", help="Round arrays to the model's floating-point type.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Write outputs to a file.")]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the server.

    Attributes:
        model: the model's name.
        version: its version; "" = the server's choice.
        files: files that fit the model as they are.
        named: files by input.
        reading: how files become inputs.
        batch_size: rows per request; 0 = as many as the model takes.
        in_flight: requests at a time.
        priority: 0 = the model's default.
        timeout_s: for each request, from sending to its answer.
        queue_timeout_us: for each request in the server's queue; 0 = the model's default.
        classes: best classes of each output instead of values; 0 = values.
    """

    model: str
    version: str
    files: tuple[Path, ...]
    named: tuple[tuple[str, Path], ...]
    reading: _inputs.InputOptions
    batch_size: int
    in_flight: int
    priority: int
    timeout_s: float
    queue_timeout_us: int
    classes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        outputs: arrays by name, all rows.
        datatypes: wire datatype by output.
        version: the version that answered.
        has_rows: whether the first dimension is the batch.
    """

    outputs: dict[str, Any]
    datatypes: Mapping[str, str]
    version: str
    has_rows: bool


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("infer")(with_connection(infer))


def infer(
    model: Model,
    connection: Connection,
    files: Files = None,
    named: Named = None,
    version: Version = "",
    batch_size: BatchSize = 0,
    in_flight: InFlight = 8,
    priority: Priority = 0,
    timeout_s: Timeout = 60.0,
    queue_timeout_s: QueueTimeout = 0.0,
    classes: Classes = 0,
    scale: Scale = "1",
    may_round: Round = False,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Send rows from files to a model and print the answers.

    A model with one input takes files as they are; otherwise say --input NAME=FILE, or name the
    arrays in an .npz or .json file, or the columns of a .csv. Images become one row each, resized
    to what the input takes.
    """
    ask = Ask(
        model=model,
        version=version,
        files=tuple(files or ()),
        named=tuple(_named(text) for text in named or ()),
        reading=_inputs.InputOptions(scale=_fraction(scale), may_round=may_round),
        batch_size=batch_size,
        in_flight=in_flight,
        priority=priority,
        timeout_s=timeout_s,
        queue_timeout_us=round(queue_timeout_s * 1e6),
        classes=classes,
    )
    if not ask.files and not ask.named:
        raise typer.BadParameter("no FILE and no --input NAME=FILE is given")
    with client_errors(connection.url):
        answer = asyncio.run(_connect_and_ask(ask, connection))
    _show(answer, ask.model, as_json, output)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise typer.BadParameter(f"--input: expected NAME=FILE, got '{text}'")
    return name, Path(path)


def _fraction(text: str) -> float:
    dividend, _, divisor = text.partition("/")
    try:
        return float(dividend) / float(divisor or 1)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(
            f"--scale: expected a number or a fraction such as 1/255, got '{text}'"
        ) from None


async def _connect_and_ask(ask: Ask, to: Connection) -> Answer:
    from penstock_client import AsyncClient

    async with made(lambda: AsyncClient(to.url, timeout_s=ask.timeout_s, **to.settings)) as client:
        return await ask_server(ask, client)


async def ask_server(ask: Ask, client: AsyncClient) -> Answer:
    """Looks the model up, reads the files as it wants them, sends the rows.

    Args:
        ask: what to ask.
        client: of the server to ask.

    Raises:
        CommandError: a file, or an option, does not fit the model.
    """
    metadata = await client.model_metadata(ask.model, ask.version)
    config = await client.model_config(ask.model, ask.version)
    model = model_interface(metadata, config)
    inputs = _inputs.gather(ask.files, ask.named, model, ask.reading)
    requests = _send.split(inputs, _rows_per_request(ask, model))
    answers = await _send_with_progress(client, ask, metadata, requests)
    outputs = _send.joined_outputs(answers)
    datatypes = {tensor.name: tensor.datatype for tensor in metadata.outputs}
    if ask.classes:
        datatypes = dict.fromkeys(datatypes, "BYTES")
    return Answer(outputs, datatypes, answers[0].model_version, model.max_batch_size > 0)


def _rows_per_request(ask: Ask, model: ModelInterface) -> int:
    if model.max_batch_size and ask.batch_size > model.max_batch_size:
        raise CommandError(
            f"--batch-size {ask.batch_size} is more than model '{model.name}' takes: "
            f"{model.max_batch_size}"
        )
    if not model.max_batch_size and ask.batch_size > 1:
        raise CommandError(f"--batch-size {ask.batch_size}: model '{model.name}' does not batch")
    return ask.batch_size or model.max_batch_size if model.max_batch_size else 0


async def _send_with_progress(
    client: AsyncClient, ask: Ask, metadata: ModelMetadata, requests: list[dict[str, Any]]
) -> list[InferResult]:
    classification = {t.name: ask.classes for t in metadata.outputs} if ask.classes else {}

    async def send(inputs: dict[str, Any]) -> InferResult:
        return await client.infer(
            ask.model,
            _as_sent(inputs, metadata),
            version=ask.version,
            priority=ask.priority,
            timeout_us=ask.queue_timeout_us,
            classification=classification,
        )

    with _progress(len(requests)) as bar:
        if bar is None:
            return await _send.send_all(send, requests, ask.in_flight)
        task = bar.add_task(f"{ask.model}", total=len(requests))
        return await _send.send_all(send, requests, ask.in_flight, lambda: bar.advance(task))


def _as_sent(inputs: dict[str, Any], metadata: ModelMetadata) -> dict[str, Any]:
    """With the datatype spelled out where numpy has no type for it."""
    from penstock_client import Tensor

    bf16 = {tensor.name for tensor in metadata.inputs if tensor.datatype == "BF16"}
    return {n: Tensor(array, "BF16") if n in bf16 else array for n, array in inputs.items()}


def _progress(requests: int) -> Any:
    """A progress bar on stderr for a long input, where someone may see it."""
    if requests < _LONG_INPUT:
        return nullcontext()
    from penstock.commands._render import console

    terminal = console(stderr=True)
    if not terminal.is_terminal:
        return nullcontext()
    from rich.progress import Progress

    return Progress(console=terminal, transient=True)


def _show(answer: Answer, model: str, as_json: bool, output: Path | None) -> None:
    from penstock.commands import _render

    if output is not None:
        _write(answer, output)
    if as_json:
        document = _render.outputs_document(answer.outputs, answer.datatypes, model, answer.version)
        _render.print_json(document)
    elif output is None:
        _render.print_outputs(answer.outputs, has_rows=answer.has_rows)
    else:
        typer.echo(f"wrote {', '.join(answer.outputs)} to {output}")


def _write(answer: Answer, path: Path) -> None:
    """Writes an .npz that loads without pickle: BYTES as fixed-width bytes, BF16 as float32."""
    import numpy as np

    arrays = {name: _storable(array) for name, array in answer.outputs.items()}
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {os_reason(error)}") from None


def _storable(array: Any) -> Any:
    if array.dtype.kind == "O":
        return array.astype(bytes)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array
