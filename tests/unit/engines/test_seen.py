"""How many devices are seen: asked once, of a driver that may hang or crash."""

import sys
from pathlib import Path

import pytest

from penstock.engines import SeenDevices

ANSWER = """
import json, os, pathlib, sys
asked = pathlib.Path(sys.argv[1])
asked.write_text(asked.read_text() + "." if asked.exists() else ".")
os.write(int(sys.argv[2]), (json.dumps({"devices": %d}) + "\\n").encode())
"""


def seen(*program: str, limit_s: float = 60.0) -> SeenDevices:
    return SeenDevices(limit_s, (sys.executable, "-I", "-c", *program))


def test_devices_are_counted_once(tmp_path: Path) -> None:
    devices = seen(ANSWER % 3, str(tmp_path / "asked"))
    assert [devices.count(), devices.count()] == [3, 3]
    assert (tmp_path / "asked").read_text() == "."


def test_driver_that_was_not_there_is_asked_again(tmp_path: Path) -> None:
    devices = seen(ANSWER % 0, str(tmp_path / "asked"))
    assert [devices.count(), devices.count()] == [0, 0]
    assert (tmp_path / "asked").read_text() == ".."


def test_driver_that_hangs_is_waited_for_once(caplog: pytest.LogCaptureFixture) -> None:
    devices = seen("import signal; signal.pause()", limit_s=0.2)
    assert [devices.count(), devices.count()] == [1, 1]
    assert [each.levelname for each in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("program", ["import os; os.abort()", "print('a vendor's words')", "0"])
def test_process_that_does_not_answer_has_seen_none(program: str) -> None:
    assert seen(program).count() == 0


def test_process_that_does_not_start_has_seen_none(tmp_path: Path) -> None:
    assert SeenDevices(60.0, (str(tmp_path / "nothing"),)).count() == 0
