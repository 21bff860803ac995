"""The flags of `penstock serve` and `penstock gateway`, generated from their settings.

Every flag takes text and the settings read it, so flags and environment variables obey the same
rules and all faults come out at once. Booleans take a value, as Triton's: `--exit-on-error=false`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import typer

from penstock.config import setting_fields
from penstock.setting import SettingField

Texts = dict[str, str | list[str]]

POSITIONAL = "repositories"


def with_flags(
    run: Callable[[Texts], None], fields: Sequence[SettingField] | None = None
) -> Callable[..., None]:
    """A function for typer with one parameter per setting.

    Args:
        run: gets what was given, by field name.
        fields: the settings; None = the server's, and the positional repositories.
    """

    def command(**given: Any) -> None:
        run({name: value for name, value in given.items() if value})

    positional = [_positional()] if fields is None else []
    parameters = [*positional, *map(_parameter, fields or setting_fields())]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = run.__doc__
    return command


def given_settings(
    flags: Mapping[str, str | list[str]],
    environment: Mapping[str, str],
    names: Collection[str] | None = None,
    fields: Sequence[SettingField] | None = None,
) -> Texts:
    """What was set, by field name; a flag wins over its environment variable.

    Args:
        flags: from the command line; positional repositories come before --model-repository's.
        environment: variables of the process.
        names: the settings that count in the environment; None = all.
        fields: all settings; None = the server's.
    """
    texts: Texts = {}
    for field in fields or setting_fields():
        if names is not None and field.name not in names:
            continue
        text = environment.get(field.variable, "")
        if text:
            texts[field.name] = text.split(field.setting.separator) if field.repeated else text
    texts.update({name: value for name, value in flags.items() if name != POSITIONAL})
    positional = flags.get(POSITIONAL, [])
    if positional:
        texts["model_repository"] = [*positional, *flags.get("model_repository", [])]
    return texts


def _positional() -> inspect.Parameter:
    default = typer.Argument(None, metavar="REPOSITORY", help="Directories of models.")
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(POSITIONAL, kind, default=default, annotation=list[str])


def _parameter(field: SettingField) -> inspect.Parameter:
    default = typer.Option(
        None,
        field.flag,
        *field.setting.flags,
        metavar=_metavar(field),
        help=_help(field),
        show_default=False,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=list[str] if field.repeated else str,
    )


def _metavar(field: SettingField) -> str:
    if field.choices:
        return "|".join(field.choices)
    names = {bool: "true|false", int: "N", float: "X", str: "TEXT"}
    return (field.setting.unit if field.type is not bool else "") or names.get(field.type, "DIR")


def _help(field: SettingField) -> str:
    default = ", ".join(field.default) if field.repeated else str(field.default)
    if field.type is bool:
        default = default.lower()
    return field.setting.help + ("" if field.default in ((), "") else f" [{default}]")
