"""Every test that server/README.md names as the proof of a promise exists."""

import re
from pathlib import Path

from penstock.config import setting_fields

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(test_\w+): (test_\w+)`")


def test_every_promise_has_its_test() -> None:
    named = NAMED.findall((ROOT / "server" / "README.md").read_text())
    assert len(named) > 20
    for file, name in named:
        source = (ROOT / "tests" / "integration" / f"{file}.py").read_text()
        assert f"def {name}(" in source, (file, name)


def test_every_other_file_of_tests_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.\w+)`", (ROOT / "server" / "README.md").read_text())
    assert "tests/native/transport/stream_test.cc" in named
    assert [file for file in named if not (ROOT / file).is_file()] == []


def test_every_row_of_the_promises_names_a_test() -> None:
    text = (ROOT / "server" / "README.md").read_text()
    table = text.split("## What the server promises")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert [row for row in rows if not NAMED.search(row)] == []


def test_every_flag_is_in_the_table() -> None:
    text = (ROOT / "server" / "README.md").read_text()
    for field in setting_fields():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{field.flag}`")]
        assert all(f"`{flag}`" in row for flag in field.setting.flags), field.flag
        assert field.setting.help.replace("|", "or") in row, field.flag


def test_readme_names_every_flag_of_access() -> None:
    text = (ROOT / "README.md").read_text()
    flags = [field.flag for field in setting_fields() if field.setting.group == "Access"]
    assert [flag for flag in flags if f"`{flag}`" not in text] == []
