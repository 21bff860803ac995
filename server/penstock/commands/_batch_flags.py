"""The flags of `penstock batch`."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Name of the model; with --store also NAME@3 or NAME@alias."
    ),
]
Input = Annotated[
    str,
    typer.Option(
        "--input", metavar="URI", help="A file, a directory or a pattern; local, s3://, gs://, ..."
    ),
]
Output = Annotated[str, typer.Option("--output", metavar="URI", help="A directory.")]
Repository = Annotated[
    list[str] | None,
    typer.Option(
        "--repository",
        metavar="DIR",
        help="Directory of models, to run the model in this process; repeatable.",
    ),
]
Store = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        help="Model store, to fetch the model from and run it in this process; else "
        "PENSTOCK_STORE, where no repository is set.",
    ),
]
StoreCache = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Directory of fetched artifacts; default in the user's."),
]
BuildEnvironments = Annotated[
    bool,
    typer.Option(
        "--store-build-environments",
        help="Build the environment of a Python model's locked requirements, which downloads.",
    ),
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
Version = Annotated[
    str, typer.Option("--model-version", metavar="N", help="Version; default latest.")
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="INPUT=COLUMN,...",
        help="Columns that make an input of another name; patterns such as pixel_* are fine.",
    ),
]
Key = Annotated[
    str, typer.Option(metavar="COLUMN", help="Carried to the outputs, and named with rejects.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="COLUMN", help="Carried to the outputs; repeatable."),
]
InputFormat = Annotated[
    str,
    typer.Option(metavar="FORMAT", help="parquet, feather, csv, jsonl, npy, npz or images."),
]
OutputFormat = Annotated[
    str, typer.Option(metavar="FORMAT", help="parquet, feather, csv, jsonl, npy or npz.")
]
Round = Annotated[bool, typer.Option("--round", help="Round floats to the model's type.")]
Scale = Annotated[float, typer.Option(metavar="X", help="Multiply pixels of images (0 to 255).")]
BatchSize = Annotated[
    int, typer.Option(min=0, metavar="N", help="Rows per request; 0 = the most the model takes.")
]
InFlight = Annotated[
    int,
    typer.Option(min=0, max=1024, metavar="N", help="Requests under way at a time; 0 = by size."),
]
PartRows = Annotated[
    int, typer.Option(min=0, metavar="N", help="Rows per part, of at most 100000; 0 = by size.")
]
Limit = Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the first N rows.")]
MaxRejects = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Stop when more rows are rejected.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="For each request.")
]
Retry = Annotated[
    float,
    typer.Option("--retry-for", min=0, metavar="SECONDS", help="How long to try a request anew."),
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on where an earlier run was.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the outputs of another job.")]
Shard = Annotated[
    str, typer.Option(metavar="I/N", help="Do every N-th part only, from the I-th (0 to N-1).")
]
Background = Annotated[
    bool,
    typer.Option(
        "--background",
        help="With --server: other requests go first; --batch-size is at most the server's "
        "--background-batch-size.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|server|ray",
        help="What answers; default: server with --server, else local.",
    ),
]
RayAddress = Annotated[
    str, typer.Option(metavar="ADDRESS", help="The Ray cluster; auto = this machine's.")
]
Workers = Annotated[
    int, typer.Option(min=1, metavar="N", help="Workers on the cluster, each with a core.")
]
