"""The progress bar of `penstock batch`: rows, rate and time left, where someone may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.jobs.job import Progress
    from penstock.jobs.planning import PlannedJob


@contextmanager
def progress_bar(job: PlannedJob) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr while the job runs; nothing where stderr is no terminal.

    Returns:
        What to call with each progress.
    """
    from penstock.commands._render import console

    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield lambda progress: None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[rejects]}"),
    )
    with bars.Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task(job.plan.model.name, total=job.rows, rate="", rejects="")

        def show(progress: Progress) -> None:
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=progress.rows,
                total=progress.total,
                rate="" if speed is None else f"{speed:,.0f} rows/s",
                rejects=f"{progress.rejected} rejected" if progress.rejected else "",
            )

        yield show
