"""Every flag of every command is on the operator's page, with what its help says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from penstock.commands._cli import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "server" / "README.md"
PAGES = {
    "serve": PAGE,
    "scaler": ROOT / "server" / "penstock" / "scaling" / "README.md",
}
"""Commands whose flags have a table of their own, by flag."""
ROW = re.compile(r"^\| ([a-z][\w ,-]*) \| (`--[\w`, -]+`) \| (.*) \|$", re.MULTILINE)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Commands without subcommands, by their words."""
    for name, each in getattr(command, "commands", {}).items():
        if getattr(each, "commands", None):
            yield from leaves(each, (*path, name))
        else:
            yield " ".join((*path, name)), each


def flags(command: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Spellings and help of each option that is shown."""
    for option in command.params:
        if option.param_type_name == "option" and not option.hidden:
            spellings = (*option.opts, *option.secondary_opts)
            text = " ".join((option.help or "").replace("|", "or").split())
            yield tuple(each for each in spellings if each.startswith("--")), text


COMMANDS = dict(leaves(get_command(app)))


def listed() -> dict[tuple[str, str], str]:
    """What the page says, by command and flag."""
    section = PAGE.read_text().split("### Flags of the other commands\n")[1].split("\n## ")[0]
    found = {}
    for commands, spellings, text in ROW.findall(section):
        for command in commands.split(", "):
            for flag in re.findall(r"`(--[\w-]+)`", spellings):
                assert (command, flag) not in found, "listed twice"
                found[command, flag] = text
    return found


def test_page_lists_every_flag_of_every_command_and_no_other() -> None:
    expected = {
        (name, flag): text
        for name, command in COMMANDS.items()
        if name not in PAGES
        for spellings, text in flags(command)
        for flag in spellings
    }
    assert len(expected) > 200
    assert listed() == expected


@pytest.mark.parametrize("name", sorted(PAGES))
def test_table_of_its_own_has_every_flag(name: str) -> None:
    lines = PAGES[name].read_text().splitlines()
    spellings = [each for each, _ in flags(COMMANDS[name])]
    assert len(spellings) > 20
    for each in spellings:
        rows = [line for line in lines if line.startswith(f"| `{each[0]}`")]
        assert len(rows) == 1 and all(f"`{flag}`" in rows[0] for flag in each), each
