"""`penstock make-key`: the entry fits the key, and the server's file takes it."""

import hashlib
import json
from pathlib import Path

from tests.support.access_files import write_keys
from typer.testing import CliRunner

from penstock.access.keys import read_keys
from penstock.commands._cli import app

RUNNER = CliRunner()


def test_entry_is_of_the_key_and_goes_into_the_file(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["make-key", "team-a", "--group", "all"])
    key, entry = (line.partition(": ")[2] for line in result.output.splitlines())
    document = json.loads(entry)
    assert document["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert len(key) >= 43
    assert len(read_keys(write_keys(tmp_path / "keys.json", document))) == 1


def test_keys_differ() -> None:
    assert (
        RUNNER.invoke(app, ["make-key", "a"]).output != RUNNER.invoke(app, ["make-key", "a"]).output
    )


def test_unknown_group_is_wrong_usage() -> None:
    result = RUNNER.invoke(app, ["make-key", "a", "--group", "admin"])
    assert (result.exit_code, "got 'admin'" in result.output) == (2, True)
