"""`penstock build-engine`: compiles an ONNX model into a TensorRT plan."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from penstock.codec import ModelConfig, read_config_text
from penstock.commands._failure import CommandError
from penstock.engines import (
    FLAVOURS,
    VISIBLE_DEVICES,
    BuildRequest,
    batching_of,
    build_engine,
    find_visible,
    parse_range,
)
from penstock.errors import ConfigError
from penstock.operations import OperationCounter
from penstock.repository.backends import PLANS_OF_ONNX, choose_backend, platform_of
from penstock.repository.completion import with_names
from penstock.repository.layout import (
    CONFIG_FILENAME,
    ModelDirectory,
    find_model,
    read_config_file,
    version_files,
)
from penstock.repository.serving import backend_parameters

_MODEL_FILE = "model.onnx"
_PLAN_FILE = "model.plan"
_COUNT_S = 600.0

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An ONNX file, or a model's directory (REPO/NAME).")
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The plan; for a directory: model.plan of its last version."),
]
FlavourName = Annotated[
    str, typer.Option("--library", metavar="NAME", help=f"What builds: {' or '.join(FLAVOURS)}.")
]
MaxBatch = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Rows of a batch at most; else the configuration's."),
]
Buckets = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Batch sizes that profiles end at.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=LEAST:LIKELY:GREATEST",
        help="How far an open input goes, without its batch: ids=16:128:512; repeatable.",
    ),
]
Workspace = Annotated[int, typer.Option(min=0, metavar="MIB", help="Workspace at most; 0 = any.")]
Compatible = Annotated[
    bool,
    typer.Option(
        "--version-compatible",
        help="Also for later versions, by a runtime within the plan: code for the host, which "
        "servers take with --backend-config tensorrt,host_code=1 only.",
    ),
]
TimingCache = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Timings of builds before; written with those of this one."),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="N", help="Number or UUID of the GPU to build for; else the first."),
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("build-engine")(build)


def build(
    model: Model,
    output: Output = None,
    library: FlavourName = FLAVOURS[0],
    max_batch_size: MaxBatch = None,
    buckets: Buckets = None,
    shape: Shapes = None,
    workspace: Workspace = 0,
    version_compatible: Compatible = False,
    timing_cache: TimingCache = None,
    device: Device = None,
) -> None:
    """Compile an ONNX model into a TensorRT plan, ahead of time.

    Precision is the model's own. Batch sizes come from its config.pbtxt. Nothing is built where the
    plan at the output was made of the same model, library, device and shapes.
    """
    subject = _find(model, output)
    onnx, plan, label, config = subject.onnx, subject.plan, subject.label, subject.config
    if device is not None:  # before the first call of CUDA, which then sees this one alone
        os.environ[VISIBLE_DEVICES] = find_visible(device, os.environ.get(VISIBLE_DEVICES))
    if max_batch_size is not None:
        config = replace(config, max_batch_size=max_batch_size)
    chosen = _buckets(buckets, config.max_batch_size or 0)
    by_config, open_batch = batching_of(config, _most_rows(config))
    ranges = dict(parse_range(text) for text in shape or ())
    built_rows = (chosen or by_config)[-1:]
    if not built_rows and open_batch is None:  # built without batches: shapes have their rows
        built_rows = tuple(sorted(each.greatest[0] for each in ranges.values()))[:1]
    built = build_engine(
        BuildRequest(
            model=onnx,
            output=plan,
            label=label,
            flavour=library,
            buckets=chosen or by_config,
            open_batch=None if chosen else open_batch,
            ranges=ranges,
            workspace_bytes=workspace << 20,
            version_compatible=version_compatible,
            timing_cache=timing_cache,
        ),
        _Progress().show,
        count=lambda path, inputs: _operations(label, path, inputs),
    )
    verb = "is current" if built.was_there else "was built"
    typer.echo(f"{plan} {verb}: {built.size_bytes} bytes, key {built.key}")
    if built.operations is None:
        typer.echo(f"{label}: what a row costs could not be counted, and is not kept", err=True)
    _warn_if_unserved(subject, built_rows)


def _operations(label: str, path: Path, inputs: Mapping[str, tuple[int, ...]]) -> int | None:
    """What a row costs, for who serves the plan without its ONNX file."""
    counter = OperationCounter()
    count = counter.of(label, path, inputs)
    count()
    counter.wait(_COUNT_S)
    counter.close()
    return count()


class _Subject(NamedTuple):
    """The ONNX file, the plan, what to call the model, and its configuration.

    `directory`: of a model of a repository.
    """

    onnx: Path
    plan: Path
    label: str
    config: ModelConfig
    directory: ModelDirectory | None = None


def _find(model: Path, output: Path | None) -> _Subject:
    if model.is_dir():
        return _find_in_repository(model, output)
    if not model.is_file():
        raise CommandError(f"'{model}': expected an ONNX file or a model's directory")
    if output is None:
        raise CommandError(f"--output: expected where the plan of '{model}' goes")
    return _Subject(model, output, f"model '{model.stem}'", ModelConfig())


def _find_in_repository(directory: Path, output: Path | None) -> _Subject:
    found = find_model([directory.resolve().parent], directory.resolve().name)
    if not found.versions:
        raise CommandError(
            f"model '{found.name}' has no version: expected a directory with a number"
        )
    version = found.versions[-1]
    onnx = found.version_path(version) / _MODEL_FILE
    if not onnx.is_file():
        raise CommandError(f"model '{found.name}' version {version} has no {_MODEL_FILE}")
    text = read_config_file(found)
    config = ModelConfig() if text is None else read_config_text(text, CONFIG_FILENAME).config
    plan = output or found.version_path(version) / _PLAN_FILE
    return _Subject(onnx, plan, f"model '{found.name}' version {version}", config, found)


def _most_rows(config: ModelConfig) -> int:
    """As a server tells the backend, where the configuration does not say."""
    named = with_names(config, "", PLANS_OF_ONNX)
    return int(backend_parameters(named)["max_batch_size"])


def _warn_if_unserved(subject: _Subject, most: tuple[int, ...]) -> None:
    """Says so where a server would look for the plan, and would take another file, or refuse it.

    `most`: rows that it was built for; (): as many as the server completes the configuration to.
    """
    found = subject.directory
    if found is None or subject.plan != found.version_path(found.versions[-1]) / _PLAN_FILE:
        return
    backend = PLANS_OF_ONNX
    with suppress(ConfigError):  # which no server serves: what is wrong with it is told there
        backend = choose_backend(subject.config, version_files(found), ())
    if backend != PLANS_OF_ONNX:
        typer.echo(
            f"Warning: {CONFIG_FILENAME} of model '{found.name}' does not say platform: "
            f'"{platform_of(PLANS_OF_ONNX)}": it would be served by {backend}, without the engine',
            err=True,
        )
    field, written = _written_rows(subject.config)
    if backend == PLANS_OF_ONNX and most and written > most[0]:
        typer.echo(
            f"Warning: {CONFIG_FILENAME} of model '{found.name}' says {field}: {written}, "
            f"and the plan is built for {most[0]} rows at most: it would be refused; write at most "
            f"{most[0]}, or build it for {written}",
            err=True,
        )


def _written_rows(config: ModelConfig) -> tuple[str, int]:
    """The most rows of a batch that a configuration says, and in which field; 0: it says none."""
    batching = config.dynamic_batching
    if batching is not None and batching.preferred_batch_sizes and config.max_batch_size is None:
        return "preferred_batch_size", max(batching.preferred_batch_sizes)
    return "max_batch_size", config.max_batch_size or 0  # which those preferred are not beyond


def _buckets(text: str | None, largest: int) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1 or (largest and sizes[-1] > largest):
        most = f" up to {largest}" if largest else ""
        raise CommandError(f"--buckets: expected numbers from 1{most}, as 1,8,32, got '{text}'")
    return sizes


class _Progress:
    """One line that is written over on a terminal; a line for each phase elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def show(self, phase: str, step: int, steps: int) -> None:
        """Of `steps` of a phase, `step` are done."""
        if self._is_terminal:
            end = os.linesep if step == steps else ""
            sys.stderr.write(f"\r\x1b[K{phase}: {step}/{steps}{end}")
            sys.stderr.flush()
        elif step == 0:
            typer.echo(f"{phase}, {steps} steps", err=True)
