"""Memory of clients: a GPU's driver that does not answer is known at the end, and left behind."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock.app import App
from penstock.client_memory import ClientMemory
from penstock.config import ServerConfig


class StuckRegions:
    """Regions whose driver answers when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def check_cuda_usable(self) -> None:
        self.begun.set()
        assert self.go_on.wait(60)

    def unregister_cuda(self, _: str) -> None:
        self.check_cuda_usable()


@pytest.fixture
def stuck() -> Iterator[StuckRegions]:
    regions = StuckRegions()
    yield regions
    regions.go_on.set()


def memory_of(regions: StuckRegions) -> ClientMemory:
    engine = SimpleNamespace(shared_memory=regions)
    return ClientMemory(cast(Any, SimpleNamespace(engine=engine, run=None)))


@pytest.mark.parametrize(
    "call", [ClientMemory.check_cuda_memory, lambda memory: memory.unregister_cuda_region("")]
)
async def test_close_tells_of_a_call_that_does_not_end(
    stuck: StuckRegions, call: Callable[[ClientMemory], Awaitable[None]]
) -> None:
    memory = memory_of(stuck)
    calling = asyncio.ensure_future(call(memory))
    assert await asyncio.to_thread(stuck.begun.wait, 60)
    assert not await memory.close(0.0)
    stuck.go_on.set()
    assert await memory.close(60.0)
    await calling


async def test_stop_of_a_server_with_a_stuck_driver_is_not_clean(
    stuck: StuckRegions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(ServerConfig(model_repository=(tmp_path,), exit_timeout_secs=0))
    app.client_memory = memory_of(stuck)
    calling = asyncio.ensure_future(app.client_memory.check_cuda_memory())
    assert await asyncio.to_thread(stuck.begun.wait, 60)
    assert not await app.stop(), "the process is ended by force"
    assert "a driver is stuck" in caplog.text
    stuck.go_on.set()
    await calling
