"""The command line: python -m bench.peers (`make bench-peers`)."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from mlperf import machine
from peers import plot, table
from peers.peer import HOME, Peer
from peers.run import Run, save
from peers.workload import digits, resnet50
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

NAMES = (
    "penstock",
    "triton",
    "mosec",
    "mlserver",
    "kserve",
    "litserve",
    "bentoml",
    "torchserve",
    "ray",
)
"""Each a module of this folder; the order of the first round."""
README = Path(__file__).resolve().parents[1] / "README.md"
PLOT = Path(__file__).with_name("peers.svg")


def peers(names: list[str]) -> list[Peer]:
    """The subclasses' instances, by their modules' names."""
    return [importlib.import_module(f"peers.{name}").PEER for name in names]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument(
        "--works", nargs="+", choices=("digits", "resnet50"), default=["digits", "resnet50"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, about")
    parser.add_argument(
        "--rates", type=int, nargs="*", default=[200, 2_000, 10_000], help="open loop"
    )
    parser.add_argument("--output", type=Path, default=HOME / "results.json")
    parser.add_argument("--publish", action="store_true", help="table and plot to bench/README.md")
    parser.add_argument("--table-only", action="store_true", help="of the results there are")
    return parser.parse_args(arguments)


def main() -> None:
    """Measures, writes the raw results, then the table and the plot from them.

    Exit status: 130 where it was interrupted; what there was until then is in the table.
    """
    args = parse(sys.argv[1:])
    if args.publish and not args.table_only:
        refuse_dirty(machine.revision())
    is_interrupted = False
    if not args.table_only:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            measure(args)
        except KeyboardInterrupt:
            is_interrupted = True
    results = json.loads(args.output.read_text())
    if args.publish:
        refuse_dirty(results["machine"]["penstock"])
    text = table.render(results, {peer.name: peer for peer in peers(list(NAMES))})
    args.output.with_suffix(".md").write_text(text)
    args.output.with_suffix(".svg").write_text(plot.render(results))
    print(text)
    if args.publish:
        README.write_text(table.place(README.read_text(), text))
        PLOT.write_text(plot.render(results))
    if is_interrupted:
        raise SystemExit(130)


def refuse_dirty(revision: str) -> None:
    """What is published must be of a revision that others can have.

    Raises:
        SystemExit: 2, the tree has changes that are not committed.
    """
    if "-dirty" in revision:
        print(f"--publish: {revision} has changes that are not committed", file=sys.stderr)
        raise SystemExit(2)


def command(arguments: list[str]) -> str:
    """What to type for such a run; `--publish` changes nothing in it."""
    kept = [each for each in arguments if each != "--publish"]
    return f"make bench-peers ARGS={shlex.quote(shlex.join(kept))}" if kept else "make bench-peers"


def measure(args: argparse.Namespace) -> None:
    """Runs all and saves after each contestant, so that an interrupted run leaves what it had."""
    load_before, begin_s = machine.load(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        makers = {
            "digits": lambda: digits(Path(folder), tuple(args.rates)),
            "resnet50": lambda: resnet50(Path(folder)),
        }
        works = [makers[name]() for name in args.works]
        run = Run(peers(args.only), works, args.rounds, args.seconds)
        run.results["machine"] = machine.describe(load_before)
        run.results["command"] = command(sys.argv[1:])
        run.results["settings"] = {"rounds": args.rounds, "seconds": args.seconds}
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        console = Console(stderr=True)
        with Progress(*columns, console=console) as bar:
            total = len(args.only) + args.rounds * len(run.contestants())
            task = bar.add_task("", total=total)

            def progress(text: str) -> None:
                bar.update(task, description=text, advance=1 if bar.tasks[0].description else 0)
                if not console.is_terminal and text:
                    console.print(text)
                run.results["took_s"] = time.monotonic() - begin_s
                run.results["load_after"] = machine.load()
                save(run.results, args.output)

            run.execute(progress)
