"""`penstock batch`: a model over files of rows, resumable."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from penstock.commands import _batch_flags as flags
from penstock.commands._batch_store import STORE_SETTINGS, store_engine, store_url
from penstock.commands._connection import Connection, with_connection
from penstock.commands._failure import EXIT_USAGE, CommandError, client_errors, made, report
from penstock.commands._flags import Texts, given_settings
from penstock.config import ServerConfig
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.jobs.job import JobResult
    from penstock.jobs.on_ray import MakeEngine
    from penstock.jobs.planning import JobOptions, PlannedJob

_SETTINGS = ("model_repository", "backend_directory", "backend_config", "python_environments")


@dataclass(frozen=True, slots=True)
class _Sending:
    """How requests are sent, and to a model of which store; "" = of none that is named."""

    timeout_s: float
    is_background: bool
    store: str


@dataclass(frozen=True, slots=True)
class _Run:
    """What to do with the job, once it is planned."""

    options: JobOptions
    make_engine: MakeEngine
    cluster: tuple[str, int] | None
    is_dry: bool
    as_json: bool


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("batch")(with_connection(batch, flag="--server", default_url=""))


def batch(
    model: flags.Model,
    connection: Connection,
    input_uri: flags.Input,
    output_uri: flags.Output,
    repository: flags.Repository = None,
    store: flags.Store = "",
    store_cache: flags.StoreCache = None,
    store_build_environments: flags.BuildEnvironments = False,
    backend_directory: flags.BackendDirectory = None,
    backend_config: flags.BackendConfig = None,
    python_environments: flags.Environments = None,
    version: flags.Version = "",
    maps: flags.Map = None,
    key: flags.Key = "",
    keep: flags.Keep = None,
    input_format: flags.InputFormat = "",
    output_format: flags.OutputFormat = "",
    may_round: flags.Round = False,
    scale: flags.Scale = 1.0,
    batch_size: flags.BatchSize = 0,
    in_flight: flags.InFlight = 0,
    part_rows: flags.PartRows = 0,
    limit: flags.Limit = None,
    max_rejects: flags.MaxRejects = None,
    timeout_s: flags.Timeout = 60.0,
    retry_s: flags.Retry = 60.0,
    resume: flags.Resume = True,
    overwrite: flags.Overwrite = False,
    shard: flags.Shard = "0/1",
    engine: flags.EngineName = "",
    ray_address: flags.RayAddress = "auto",
    workers: flags.Workers = 1,
    background: flags.Background = False,
    dry_run: flags.DryRun = False,
    as_json: flags.Json = False,
) -> None:
    """Run a model over files of rows, here (--repository, --store), on a server, or on Ray.

    Columns become inputs by name. Outputs are parts in a directory, complete once manifest.json is
    there; rows that fail are in its folder rejects, with the reason. A job that was stopped goes on
    when it is run again, with the version of the model that began it, and one that is finished is
    not done again.

    Exit codes: 0 done; 1 failed; 2 wrong usage or plan; 3 more rejects than allowed; 75 stopped by
    something that may pass, run it again; 130 interrupted.
    """
    given = dict(locals())
    _check_packages()
    settings, options = _settings(given), _options(given)
    sending = _Sending(timeout_s, background, store)
    cluster = (ray_address, workers) if engine == "ray" else None
    with _job_errors(connection):
        options, make_engine = _engine_maker(engine, settings, connection, options, sending)
        _finish(_Run(options, make_engine, cluster, dry_run, as_json))


def _settings(given: Mapping[str, Any]) -> Texts:
    """The settings of a server that were given, as texts."""
    named = {"model_repository": given["repository"]}
    named |= {name: given[name] for name in (*_SETTINGS, *STORE_SETTINGS) if name in given}
    texts = {name: "true" if value is True else value for name, value in named.items()}
    return {name: value for name, value in texts.items() if value}


def _options(given: Mapping[str, Any]) -> JobOptions:
    """The job, of what was given by name of parameter."""
    from penstock.jobs.planning import JobOptions

    names = {field.name for field in fields(JobOptions)}
    return JobOptions(
        **{
            **{name: value for name, value in given.items() if name in names},
            "maps": dict(_mapping(text) for text in given["maps"] or ()),
            "keep": tuple(given["keep"] or ()),
            "request_rows": given["batch_size"],
            "shard": _shard(given["shard"]),
        }
    )


def _check_packages() -> None:
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None:
        raise CommandError("batch jobs need pyarrow: pip install 'penstock[batch]'")


def _mapping(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, columns = text.partition("=")
    listed = tuple(column for column in columns.split(",") if column)
    if not name or not equals or not listed:
        raise typer.BadParameter(f"--map: expected INPUT=COLUMN,..., got '{text}'")
    return name, listed


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise typer.BadParameter(f"--shard: expected I/N with I from 0 to N-1, got '{text}'")
    return int(index), int(count)


def _engine_maker(
    name: str, given: Texts, connection: Connection, options: JobOptions, sending: _Sending
) -> tuple[JobOptions, MakeEngine]:
    """The job as it is run, and what makes the engine; nothing is started yet."""
    from penstock.jobs.remote import remote_engine

    if name not in ("", "local", "server", "ray"):
        raise typer.BadParameter(f"--engine: expected local, server or ray, got '{name}'")
    if connection.url and "model_repository" in given:
        raise typer.BadParameter("--server and --repository: say one of them")
    if sending.store and (connection.url or "model_repository" in given):
        raise typer.BadParameter("--store goes with neither --server nor --repository")
    if (name or "server") == "server" and connection.url:
        return options, partial(
            remote_engine,
            connection.url,
            connection.settings,
            sending.timeout_s,
            sending.is_background,
        )
    if sending.is_background:
        raise typer.BadParameter("--background and --server HOST:PORT go together")
    if name == "server" or connection.url:
        raise typer.BadParameter("--engine server and --server HOST:PORT go together")
    try:
        return _in_process(given, options, sending)
    except ConfigError as error:
        report(error.faults)
        raise typer.Exit(EXIT_USAGE) from None


def _in_process(
    given: Texts, options: JobOptions, sending: _Sending
) -> tuple[JobOptions, MakeEngine]:
    """The model in a core of the process that runs the job: of the store, or of a repository."""
    from penstock.batch import local_engine

    settings = given_settings(given, os.environ, (*_SETTINGS, *STORE_SETTINGS))
    if url := store_url(sending.store, "model_repository" in settings):
        settings.pop("model_repository", None)
        stored, make_engine = store_engine(url, options, settings, sending.timeout_s)
        if stored.note:
            typer.echo(stored.note, err=True)
        return replace(options, model=stored.name, version=str(stored.version)), make_engine
    if "model_repository" not in settings:
        raise typer.BadParameter("say --repository DIR or --server HOST:PORT, or --store URL")
    config = ServerConfig.from_text(settings)
    return options, partial(local_engine, config, options.model, sending.timeout_s)


@contextmanager
def _job_errors(connection: Connection) -> Iterator[None]:
    """Turns what a job raises into its exit code."""
    from penstock.jobs.failures import JobError

    try:
        with client_errors(connection.url):
            yield
    except JobError as error:
        report(error.lines)
        raise typer.Exit(error.exit_code) from None


def _finish(run: _Run) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_until_done(run))
    if result is not None:
        _show(result, run)


async def _until_done(run: _Run) -> JobResult | None:
    """The job's end; SIGTERM stops it as a crash would, but in order."""
    from penstock.jobs.failures import TemporaryError

    task = asyncio.ensure_future(_run(run))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():  # by an interrupt
            raise
        raise TemporaryError("stopped by SIGTERM; run the job again to go on") from None


async def _run(run: _Run) -> JobResult | None:
    from penstock.commands._batch_progress import progress_bar
    from penstock.jobs.job import run_job
    from penstock.jobs.planning import plan_job

    async with made(run.make_engine) as opened:
        job = await plan_job(opened, run.options)
        if run.is_dry:
            _show_plan(job, run.as_json)
            return None
        if run.cluster is None:
            with progress_bar(job) as on_progress:
                return await run_job(opened, job, on_progress)
    from penstock.jobs.on_ray import RayOptions, run_job_on_ray

    with progress_bar(job) as on_progress:
        return await run_job_on_ray(run.make_engine, job, RayOptions(*run.cluster), on_progress)


def _show_plan(job: PlannedJob, as_json: bool) -> None:
    from penstock.commands._render import print_json, print_table

    if as_json:
        print_json({"job": job.identity, "rows": job.rows, "notes": list(job.plan.notes)})
        return
    kinds = {column.name: str(column.type) for column in job.plan.columns}
    rows = [
        [
            each.tensor.name,
            each.tensor.describe(),
            ", ".join(each.columns[:4]) + (", ..." if len(each.columns) > 4 else ""),
            kinds[each.columns[0]],
        ]
        for each in job.plan.bindings
    ]
    model = job.plan.model
    print_table(["input", "takes", "columns", "type"], rows, f"{model.name} {model.version}")
    outputs = [[field.name, str(field.type)] for field in job.plan.schema]
    print_table(["output column", "type"], outputs)
    sizes = job.sizes
    typer.echo(
        f"{'unknown' if job.rows is None else job.rows} rows of {len(job.source.files)} "
        f"{job.source.format} files; {sizes.request_rows} rows per request, {sizes.in_flight} in "
        f"flight, {sizes.part_rows} rows per {job.output_format} part"
    )
    for note in job.plan.notes:
        typer.echo(note)


def _show(result: JobResult, run: _Run) -> None:
    import json
    from dataclasses import asdict

    rate = (result.rows_in - result.resumed_rows) / max(result.seconds, 1e-9)
    if run.as_json:
        typer.echo(json.dumps({**asdict(result), "rows_per_second": round(rate, 1)}))
        return
    rejected = f", {result.rows_rejected} rejected" if result.rows_rejected else ""
    resumed = f", {result.resumed_rows} of them earlier" if result.resumed_rows else ""
    typer.echo(
        f"{result.state}: {result.rows_in} rows in {result.parts} parts{rejected}{resumed}; "
        f"{result.seconds:.1f} s"
    )
    if result.state == "shard done":
        typer.echo("the manifest comes with the last shard")
