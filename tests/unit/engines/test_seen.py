"""How many devices are seen: asked once, of a driver that may hang or crash."""

import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.engines import SeenDevices
from penstock.errors import CancelledError, UnavailableError

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


NOT_KNOWN = "how many GPUs there are is not known: "


def refusal(devices: SeenDevices) -> str:
    with pytest.raises(UnavailableError) as raised:
        devices.count()
    return raised.value.message.removeprefix(NOT_KNOWN)


AS_OFTEN_AS = """
import json, os, pathlib, sys, signal
asked = pathlib.Path(sys.argv[1])
times = len(asked.read_text()) if asked.exists() else 0
asked.write_text("." * (times + 1))
if times == 0:
    %s
os.write(int(sys.argv[2]), b'{"devices": 3}\\n')
"""


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("signal.pause()", "the driver does not say within 0.5 s"),
        ("os.abort()", "the process that asks the driver was killed by SIGABRT"),
        ("sys.exit(4)", "the process that asks the driver ended with code 4"),
    ],
)
def test_driver_that_does_not_answer_fails_the_load_and_is_asked_again(
    tmp_path: Path, trouble: str, why: str
) -> None:
    limit_s = 0.5 if "pause" in trouble else 60.0
    devices = seen(AS_OFTEN_AS % trouble, str(tmp_path / "asked"), limit_s=limit_s)
    assert refusal(devices) == why
    devices._limit_s = 60.0
    assert devices.count() == 3


def test_process_that_does_not_answer_has_what_it_printed_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    devices = seen("""print("a vendor's words")""")
    assert refusal(devices) == "the process that asks the driver ended with code 0"
    assert [each.getMessage() for each in caplog.records] == [
        "what asks the driver how many GPUs there are said: a vendor's words"
    ]


def test_process_that_does_not_start_fails_the_load(tmp_path: Path) -> None:
    devices = SeenDevices(60.0, (str(tmp_path / "nothing"),))
    assert refusal(devices) == "the process for it does not start: No such file or directory"


@pytest.mark.parametrize(("failure", "said"), [(0, []), (100, []), (999, ["999"])])
def test_driver_that_cannot_be_used_has_no_device_and_its_number_in_the_log(
    caplog: pytest.LogCaptureFixture, failure: int, said: list[str]
) -> None:
    answer = f'{{"devices": 0, "failure": {failure}}}\\n'
    devices = seen(f"import os, sys; os.write(int(sys.argv[1]), b'{answer}')")
    assert devices.count() == 0
    assert [each.levelname for each in caplog.records] == ["WARNING"] * len(said)
    assert [each.getMessage().rpartition(" ")[2] for each in caplog.records] == said


def test_process_that_outlives_its_kill_is_not_joined_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []
    monkeypatch.setattr("penstock.engines.building.os.killpg", lambda pid, _: killed.append(pid))
    command = (sys.executable, "-I", "-c", "import signal; signal.alarm(60); signal.pause()")
    devices = SeenDevices(0.2, command, end_s=0.1)
    assert refusal(devices) == "the driver does not say within 0.2 s"
    held = f"process {killed[0]}, which asked the driver before, was killed and has not ended: "
    assert refusal(devices) == held + "the driver may hold it"
    os.kill(killed[0], signal.SIGKILL)
    os.waitid(os.P_PID, killed[0], os.WEXITED | os.WNOWAIT)
    assert refusal(devices) == "the driver does not say within 0.2 s", "another one asks"
    os.kill(killed[-1], signal.SIGKILL)
    os.waitid(os.P_PID, killed[-1], os.WEXITED | os.WNOWAIT)
    assert devices._held is not None
    devices._held.wait()


@pytest.fixture
def hanging_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A libcuda.so.1 that is never read to its end: a named pipe, which the test has open."""
    os.mkfifo(tmp_path / "libcuda.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    return tmp_path / "libcuda.so.1"


class Turn:
    """A lock that tells when the last of so many came to take it."""

    def __init__(self, expected: int) -> None:
        self.all_came = threading.Event()
        self._left = iter(range(expected - 1, -1, -1))
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if next(self._left) == 0:
            self.all_came.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_loads_that_wait_for_a_count_share_its_failure(tmp_path: Path) -> None:
    """Each would wait as long for its own, one after the other."""
    os.mkfifo(tmp_path / "go")
    program = """
import pathlib, sys
asked = pathlib.Path(sys.argv[1])
if asked.exists():
    sys.exit(5)
asked.touch()
asked.with_name("go").read_bytes()
sys.exit(4)
"""
    devices = seen(program, str(tmp_path / "asked"))
    turn = Turn(3)
    devices._turn = turn  # type: ignore[assignment]
    with ThreadPoolExecutor() as threads:
        counts = [threads.submit(refusal, devices) for _ in range(3)]
        assert turn.all_came.wait(60)
        (tmp_path / "go").write_bytes(b"")
        why = "the process that asks the driver ended with code 4"
        assert [each.result() for each in counts] == [why] * 3


def test_close_ends_a_count_and_refuses_those_that_come(hanging_driver: Path) -> None:
    devices = SeenDevices()
    with ThreadPoolExecutor() as threads:
        counts = [threads.submit(devices.count) for _ in range(2)]
        with hanging_driver.open("wb"):
            devices.close()
            for each in counts:
                with pytest.raises(CancelledError, match=f"^{NOT_KNOWN}the server is stopping$"):
                    each.result(timeout=30)
    with pytest.raises(CancelledError):
        devices.count()


def test_server_that_is_killed_leaves_no_process_that_asks(hanging_driver: Path) -> None:
    program = "from penstock.engines import SeenDevices; SeenDevices().count()"
    with subprocess.Popen([sys.executable, "-c", program]) as server:
        with hanging_driver.open("wb") as driver:  # the process that asks has it open
            server.kill()
            poll = select.poll()
            poll.register(driver, 0)
            assert poll.poll(60_000), "nobody reads it any more"


def test_machine_without_a_driver_sees_none(
    hanging_driver: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging_driver.unlink()
    hanging_driver.write_bytes(b"no library")
    assert SeenDevices().count() == 0
    assert caplog.records == []
