"""How many devices are seen: asked once, of a driver that may hang or crash."""

import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.engines import SeenDevices
from penstock.engines.building import BuildProcess
from penstock.engines.seen import _PROGRAM
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


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def write_program(path: Path, program: str) -> None:
    path.write_text(f"#!{sys.executable} -I\nimport os, signal, sys\n{program}\n")
    path.chmod(0o700)


NOT_STARTED = "the process for it does not start: No such file or directory"


@pytest.mark.parametrize(
    ("trouble", "limit_s", "why"),
    [
        ("signal.pause()", 0.1, "the driver does not say within 0.1 s"),
        ("os.abort()", 60.0, "the process that asks the driver was killed by SIGABRT"),
        ("sys.exit(4)", 60.0, "the process that asks the driver ended with code 4"),
    ],
)
def test_driver_that_does_not_answer_fails_loads_for_a_while_without_being_asked(
    tmp_path: Path, trouble: str, limit_s: float, why: str
) -> None:
    """Each version of each model would wait for it again, one after the other."""
    asks, clock = tmp_path / "asks", Clock()
    write_program(asks, trouble)
    devices = SeenDevices(limit_s, (str(asks),), now=clock)
    assert refusal(devices) == why
    asks.unlink()
    clock.now_s = limit_s
    assert refusal(devices) == why
    clock.now_s += 0.01
    assert refusal(devices) == NOT_STARTED, "it is asked again"


def test_driver_that_was_mended_is_found(tmp_path: Path) -> None:
    asks, clock = tmp_path / "asks", Clock()
    write_program(asks, "sys.exit(4)")
    devices = SeenDevices(60.0, (str(asks),), now=clock)
    assert refusal(devices) == "the process that asks the driver ended with code 4"
    write_program(asks, """os.write(int(sys.argv[1]), b'{"devices": 3}\\n')""")
    clock.now_s = 61.0
    assert [devices.count(), devices.count()] == [3, 3]


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
    assert refusal(devices) == NOT_STARTED


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
    monkeypatch.setattr(BuildProcess, "end", lambda _self, _limit_s: False)
    clock = Clock()
    command = (sys.executable, "-I", "-c", "import signal; signal.alarm(60); signal.pause()")
    devices = SeenDevices(0.1, command, now=clock)
    assert refusal(devices) == "the driver does not say within 0.1 s"
    clock.now_s = 1.0
    held = refusal(devices)
    assert held.endswith(", was killed and has not ended: the driver may hold it")
    process = int(held.split()[1].rstrip(","))
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    monkeypatch.undo()
    clock.now_s = 2.0
    assert refusal(devices) == "the driver does not say within 0.1 s", "another one asks"


@pytest.fixture
def hanging_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A libcuda.so.1 that is never read to its end: a named pipe, which the test has open."""
    os.mkfifo(tmp_path / "libcuda.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    return tmp_path / "libcuda.so.1"


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
    with ThreadPoolExecutor() as threads:
        counts = [threads.submit(refusal, devices) for _ in range(3)]
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


def test_nothing_is_started_after_close(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[object] = []
    monkeypatch.setattr("penstock.engines.seen.started", lambda *given: starts.append(given))
    devices = SeenDevices()
    devices.close()
    with pytest.raises(CancelledError):
        devices.count()
    assert starts == []


def test_server_that_is_killed_leaves_no_process_that_asks(hanging_driver: Path) -> None:
    program = "from penstock.engines import SeenDevices; SeenDevices().count()"
    with subprocess.Popen([sys.executable, "-c", program]) as server:
        with hanging_driver.open("wb") as driver:  # the process that asks has it open
            server.kill()
            poll = select.poll()
            poll.register(driver, 0)
            assert poll.poll(60_000), "nobody reads it any more"


@pytest.mark.parametrize("has_parent", [True, False])
def test_process_that_lost_its_server_before_it_could_ask_to_end_with_it_does_so(
    hanging_driver: Path, has_parent: bool
) -> None:
    hanging_driver.unlink()
    hanging_driver.write_bytes(b"no library")
    parent = os.getpid() if has_parent else 0  # which no process has here
    command = (sys.executable, "-I", "-c", _PROGRAM, str(parent), "1")
    answer = subprocess.run(command, capture_output=True, check=False, timeout=60).stdout
    assert answer == (b'{"devices": 0, "failure": 0}\n' if has_parent else b"")


def test_machine_without_a_driver_sees_none(
    hanging_driver: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging_driver.unlink()
    hanging_driver.write_bytes(b"no library")
    assert SeenDevices().count() == 0
    assert caplog.records == []
