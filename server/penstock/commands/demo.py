"""`penstock demo`: the whole way, from a trained model to batched answers, on real input."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands._demo_model import MODEL
from penstock.commands._failure import EXIT_TERMINATED, CommandError, client_errors, os_reason

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.commands._demo_load import LoadResult
    from penstock.commands._demo_model import Digits
    from penstock.commands._demo_server import ServerProcess
    from penstock.commands.answers import Audited

ACCURACY = 0.96

Seconds = Annotated[
    float, typer.Option(min=0.0, max=3600.0, metavar="SECONDS", help="How long to send requests.")
]
InFlight = Annotated[
    int, typer.Option(min=1, max=1024, metavar="N", help="Requests under way at a time.")
]
QueueDelay = Annotated[
    int,
    typer.Option(
        "--queue-delay-us", min=0, metavar="N", help="Microseconds a batch may wait for more rows."
    ),
]
Repository = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Lay the repository out here, and leave it there."),
]
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", help="Go through this model store; else through one that is gone."
    ),
]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one run of the server came to.

    Attributes:
        result: what the clients saw.
        sizes: model executions by rows.
        reasons: batches by why they closed.
        address: host:port of the server.
        audited: what it held.
    """

    result: LoadResult
    sizes: dict[int, int]
    reasons: dict[str, int]
    address: str
    audited: Audited


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo")(demo)


def demo(
    seconds: Seconds = 4.0,
    in_flight: InFlight = 64,
    queue_delay_us: QueueDelay = 0,
    repository: Repository = None,
    store: StoreUrl = "",
) -> None:
    """Train a digits classifier, push it to a model store, deploy, serve, question and audit it.

    Many clients send it images at once, one per request. Exits 0 only if the accuracy on images
    it was not trained on is at least 0.96, every answer is the one scikit-learn gives, and the
    server stops cleanly.
    """
    from penstock.commands import _demo_model, _demo_report, _demo_store
    from penstock.commands._render import console

    terminal = console()
    with _status(terminal, "training on scikit-learn's digits"):
        digits = _demo_model.train()
    terminal.print(
        f"trained     on {digits.trained_on} images, {len(digits.images)} held out; "
        f"{len(digits.onnx):,} bytes of ONNX"
    )
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder:
        work = Path(folder)
        root, url = repository or work / "models", store or str(work / "store")
        try:
            _demo_model.write_repository(root, digits.onnx, queue_delay_us)
        except OSError as error:
            raise CommandError(f"cannot write to {root}: {os_reason(error)}") from None
        command = _deploy(terminal, url, root, work, digits)
        run = _run_on_uvloop(_serve_and_load(terminal, command, url, digits, seconds, in_flight))
        _demo_report.print_result(terminal, run.result, run.sizes, run.reasons)
        terminal.print("the server stopped cleanly, and was audited before that:")
        _demo_store.print_audited(terminal, run.address, run.audited)
    if store:
        terminal.print(f"ask on, with the same --store: penstock why {MODEL}")
    if repository is not None:
        terminal.print(f"serve it again: penstock serve {root}")
    _judge(run.result)


def _deploy(terminal: Console, url: str, root: Path, work: Path, digits: Digits) -> list[str]:
    """Has the demo's environment serve the model; the command that serves the environment."""
    from penstock.commands import _demo_store
    from penstock.commands._demo_server import serve_command

    record = _demo_store.push_and_deploy(url, root, work, digits)
    terminal.print(f"pushed      {record.reference}, {record.digest[:19]}")
    terminal.print(f"deployed    {record.reference} to environment '{_demo_store.ENVIRONMENT}'")
    cache = ["--store-cache", str(work / "cache")]
    settings = ["--store", url, "--environment", _demo_store.ENVIRONMENT, *cache]
    return serve_command(None, *settings)


@contextmanager
def _status(terminal: Console, text: str) -> Iterator[None]:
    with ExitStack() as stack:
        if terminal.is_terminal:
            stack.enter_context(terminal.status(text))
        yield


def _run_on_uvloop(work: Coroutine[Any, Any, Run]) -> Run:
    """Runs it to its end; SIGTERM stops the server, too."""
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_cancelled_by_sigterm(work))
    except asyncio.CancelledError:
        raise typer.Exit(EXIT_TERMINATED) from None


async def _cancelled_by_sigterm(work: Coroutine[Any, Any, Run]) -> Run:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _serve_and_load(
    terminal: Console,
    command: Sequence[str],
    store: str,
    digits: Digits,
    seconds: float,
    in_flight: int,
) -> Run:
    from penstock.commands._demo_server import ServerProcess

    server = ServerProcess(command)
    try:
        await server.start()
        terminal.print(f"serving     at {server.grpc}, ready after {server.started_in_s:.2f} s")
        with client_errors(server.grpc):
            run = await _load(terminal, server, store, digits, seconds, in_flight)
        await server.stop()
        return run
    finally:
        await server.kill()


async def _load(
    terminal: Console,
    server: ServerProcess,
    store: str,
    digits: Digits,
    seconds: float,
    in_flight: int,
) -> Run:
    from penstock.commands import _demo_store
    from penstock.commands._demo_load import close_reasons, run_load
    from penstock_client import AsyncClient

    url = server.grpc
    with _progress(terminal, seconds) as on_answer:
        result = await run_load(url, digits, seconds, in_flight, on_answer)
    async with AsyncClient(url) as client:
        (statistics,) = await client.statistics(MODEL)
    sizes = {batch.batch_size: batch.compute_infer.count for batch in statistics.batches}
    reasons = close_reasons(await asyncio.to_thread(_scrape, server.metrics))
    audited = await asyncio.to_thread(_demo_store.audit, store, url)
    return Run(result, sizes, reasons, url, audited)


@contextmanager
def _progress(terminal: Console, seconds: float) -> Iterator[Any]:
    """A function to call with the seconds that have passed; it moves a bar where someone looks."""
    if not terminal.is_terminal:
        yield lambda passed: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("sending images"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("", total=seconds)
        shown = 0.0

        def on_answer(passed: float) -> None:
            nonlocal shown
            if passed - shown > 0.1:
                shown = passed
                bar.update(task, completed=passed)

        yield on_answer


def _scrape(address: str) -> str:
    from http.client import HTTPConnection

    connection = HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError as error:
        raise CommandError(f"no metrics from {address}: {os_reason(error)}") from None
    finally:
        connection.close()


def _judge(result: LoadResult) -> None:
    faults = []
    if result.disagreements:
        first = result.disagreements[0]
        faults.append(f"{len(result.disagreements)} answers are not scikit-learn's: {first}")
    if not result.accuracy >= ACCURACY:
        faults.append(f"accuracy {result.accuracy:.4f} is below {ACCURACY}")
    if faults:
        raise CommandError(*faults)
