"""The options by which `infer` and `models` reach a server, the same for all of them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.commands._failure import CommandError, os_reason

__all__ = ["Connection", "with_connection"]

DEFAULT_URL = "localhost:8001"
TOKEN_VARIABLE = "PENSTOCK_TOKEN"

_NAME = "connection"


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the server.

    Attributes:
        url: host:port.
        settings: what penstock_client's clients take beside that.
    """

    url: str = DEFAULT_URL
    settings: dict[str, Any] = field(default_factory=dict, repr=False)  # it holds secrets


def _options(
    url: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server.")] = DEFAULT_URL,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS.")] = False,
    root_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pem", help="Who signs the server's certificate; implies --tls."),
    ] = None,
    client_cert: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="The client's certificate.")
    ] = None,
    client_key: Annotated[Path | None, typer.Option(metavar="FILE.pem", help="Its key.")] = None,
    server_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The server's name, where its certificate has another."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Holds the API key or token; default: ${TOKEN_VARIABLE}."
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="NAME=VALUE", help="Metadata to send; repeatable."),
    ] = None,
) -> Connection:
    """What the options say."""
    from penstock_client import Tls

    settings: dict[str, Any] = {}
    if tls or root_ca or client_cert or client_key or server_name:
        try:
            settings["tls"] = Tls(root_ca, client_cert, client_key, server_name)
        except ValueError:
            raise typer.BadParameter("--client-cert and --client-key go together") from None
    token = _token(token_file)
    if token:
        settings["token"] = token
    if header:
        settings["headers"] = dict(_header(text) for text in header)
    return Connection(url, settings)


def with_connection(
    command: Callable[..., None], *, flag: str = "--url", default_url: str = DEFAULT_URL
) -> Callable[..., None]:
    """The command with these options in place of its parameter `connection`.

    Args:
        command: takes a Connection.
        flag: the option that names the server.
        default_url: without it.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    shared = [
        _named(each, flag, default_url) if each.name == "url" else each
        for each in inspect.signature(_options, eval_str=True).parameters.values()
    ]
    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for each in (*(each for each in own if each.name != _NAME), *shared)
    ]

    def run(**given: Any) -> None:
        options = {each.name: given.pop(each.name) for each in shared}
        command(**given, **{_NAME: _options(**options)})

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _named(parameter: inspect.Parameter, flag: str, default: str) -> inspect.Parameter:
    option = typer.Option(flag, metavar="HOST:PORT", help="The server.")
    return parameter.replace(default=default, annotation=Annotated[str, option])


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"cannot read {file}: {reason}") from None


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter("--header: expected NAME=VALUE")
    return name.lower(), value
