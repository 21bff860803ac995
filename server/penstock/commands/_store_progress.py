"""The progress bar of `penstock push` and `penstock fetch`, where someone may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bytes_bar(name: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr of bytes, their rate and the time left; nothing where it is no terminal.

    Returns:
        What to call with the bytes that were just moved.
    """
    from penstock.commands._render import console

    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield lambda _: None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task(name, total=size_bytes)

        def show(moved_bytes: int) -> None:
            bar.advance(task, moved_bytes)

        yield show
