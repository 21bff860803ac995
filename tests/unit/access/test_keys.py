"""The file of API keys: every fault is told, and no text quotes a key."""

import json
from pathlib import Path

import pytest
from tests.support.access_files import key_entry, write_keys

from penstock.access.keys import read_keys
from penstock.errors import ConfigError

GOOD = key_entry("a", "secret", "inference")


def faults(path: Path, *entries: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_keys(write_keys(path, *entries))
    return tuple(fault.removeprefix(f"{path}: ") for fault in caught.value.faults)


def test_digests_and_principals_come_out(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "k", GOOD, key_entry("b", "other", "all"))
    (first, _), (second, _) = read_keys(path)
    assert first.hex() == GOOD["sha256"]
    assert first != second


def test_empty_list_means_nobody(tmp_path: Path) -> None:
    assert read_keys(write_keys(tmp_path / "k")) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sha256": "secret"}, "'sha256' is 64 hexadecimal digits"),
        ({"name": ""}, "'name' is 1 to 128"),
        ({"name": "a\nb"}, "'name' is 1 to 128"),
        ({"groups": []}, "'groups' is a list of all, health"),
        ({"groups": ["everything"]}, "'groups' is a list of all, health"),
        ({"groups": [["all"]]}, "'groups' is a list of all, health"),
        ({"groups": "all"}, "'groups' is of the wrong type"),
        ({"burst": 0}, "'burst' is 1 to"),
        ({"burst": True}, "'burst' is of the wrong type"),
        ({"requests_per_second": -1}, "'requests_per_second' is 0 to"),
        ({"requests_per_second": float("nan")}, "'requests_per_second' is 0 to"),
        ({"max_request_bytes": "1"}, "'max_request_bytes' is of the wrong type"),
        ({"key": "secret"}, "'key' is no field of a key"),
    ],
)
def test_wrong_entry_is_a_fault(tmp_path: Path, changes: dict[str, object], fault: str) -> None:
    (found,) = faults(tmp_path / "k", {**GOOD, **changes})
    assert found.startswith(f"keys[0]: {fault}")
    assert "secret" not in found


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    assert len(faults(tmp_path / "k", {}, 1, {**GOOD, "burst": 0})) == 5


def test_names_and_digests_are_unique(tmp_path: Path) -> None:
    upper = {**GOOD, "name": "b", "sha256": str(GOOD["sha256"]).upper()}
    assert faults(tmp_path / "k", GOOD, {**key_entry("a", "x")}, upper) == (
        "keys[1]: its 'name' is that of another key",
        "keys[2]: its 'sha256' is that of another key",
    )


@pytest.mark.parametrize("text", ["", "secret", "[1]", '{"keys": 1}', "[" * 100_000, "\xff"])
def test_file_of_another_form_is_one_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        read_keys(path)
    assert len(caught.value.faults) == 1
    assert "secret" not in str(caught.value)


def test_missing_file_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read it: No such file"):
        read_keys(tmp_path / "none")


def test_defaults_are_overruled_by_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text(json.dumps({"keys": [{**GOOD, "requests_per_second": 0.5, "burst": 3}]}))
    assert len(read_keys(path, per_second=7.0, burst=9)) == 1
