"""How a command fails: one clear line on stderr and an exit code, never a traceback.

A traceback still means a defect in Penstock itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from penstock.errors import ConfigError, PenstockError

T = TypeVar("T")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class CommandError(PenstockError):
    """The command cannot do what was asked.

    Attributes:
        lines: what to print, one fault per line.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class CommandGroup(TyperGroup):
    """Runs a command and reports its failure."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command.

        Raises:
            typer.Exit: it failed and has said so, or was interrupted.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except PenstockError as error:
            report(fault_lines(error))
            raise typer.Exit(EXIT_FAILED) from None


def fault_lines(error: PenstockError) -> Sequence[str]:
    """What to tell about a failure, one fault per line."""
    if isinstance(error, CommandError):
        return error.lines
    if isinstance(error, ConfigError):
        return error.faults
    return [str(error)]


def report(faults: Sequence[str]) -> None:
    """Prints faults on stderr, one line each whatever they contain."""
    for fault in faults:
        typer.echo(f"Error: {one_line(fault)}", err=True)


def one_line(text: str) -> str:
    """The text with its line breaks made spaces."""
    return " ".join(text.split())


def os_reason(error: OSError) -> str:
    """What the operating system says, without the number and the path."""
    return (error.strerror or str(error)).lower()


@contextmanager
def client_errors(url: str) -> Iterator[None]:
    """Turns what the client raises into a CommandError.

    Args:
        url: host:port of the server that is talked to.
    """
    import penstock_client

    try:
        yield
    except penstock_client.RpcError as error:
        raise CommandError(_rpc_failure(error, url)) from None
    except penstock_client.PenstockError as error:
        raise CommandError(str(error)) from None
    except UnicodeEncodeError as error:  # an argument that is no text: bytes of another encoding
        raise CommandError(f"{error.object!r} is not UTF-8") from None


def made(make: Callable[[], T]) -> T:
    """What `make` gives: a client, which says by ValueError what is wrong with the url."""
    try:
        return make()
    except ValueError as error:
        raise CommandError(str(error)) from None


def _rpc_failure(error: Any, url: str) -> str:
    unreachable = ("failed to connect", "connection refused", "resolving", "name resolution")
    if error.code.name == "UNAVAILABLE" and any(t in error.message.lower() for t in unreachable):
        return f"no server answers at {url}: {error.message}"
    if "explicit model load / unload is not allowed" in error.message:  # Triton's words
        return f"{error}; start the server with --model-control-mode explicit"
    return str(error)
