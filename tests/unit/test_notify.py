"""What the service manager hears."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.notify import ServiceManager


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def manager(receiver: socket.socket, **environ: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": receiver.getsockname(), **environ})


def test_lines_are_one_datagram(heard: socket.socket) -> None:
    manager(heard).tell("READY=1", "STATUS=serving")
    assert heard.recv(1000) == b"READY=1\nSTATUS=serving"


def test_address_may_be_abstract() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0penstock-test-{os.getpid()}")
        ServiceManager({"NOTIFY_SOCKET": f"@penstock-test-{os.getpid()}"}).tell("READY=1")
        assert receiver.recv(1000) == b"READY=1"


def test_nobody_is_told_where_nobody_asks(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({}).tell("READY=1")
    assert caplog.records == []


def test_manager_that_is_gone_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    assert "cannot tell NOTIFY_SOCKET" in caplog.text


@pytest.mark.parametrize("owner", [0, os.getpid()], ids=["anyone", "itself"])
async def test_watchdog_hears_again_and_again(heard: socket.socket, owner: int) -> None:
    watched = manager(heard, WATCHDOG_USEC="2000", WATCHDOG_PID=str(owner or ""))
    watched.watch()
    loop = asyncio.get_running_loop()
    for _ in range(3):
        assert await loop.sock_recv(heard, 1000) == b"WATCHDOG=1"
    watched.close()


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}]
)
async def test_nobody_watches(heard: socket.socket, environ: dict[str, str]) -> None:
    manager(heard, **environ).watch()
    with pytest.raises(BlockingIOError):
        heard.recv(1000)
