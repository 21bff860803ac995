"""JobManager where files and models fail it, and callers go away at the worst time."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_batch import FakeEngine, outputs, write_rows

from penstock.codec import JobSpec, JobView
from penstock.errors import UnavailableError
from penstock.jobs.failures import NotServedError, TemporaryError
from penstock.jobs.manager import JobManager
from penstock.jobs.model import ModelInfo
from penstock.jobs.roots import JobRoots
from penstock.jobs.storage import Storage

SPEC = JobSpec("m", input="in.parquet", output="out")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_rows(tmp_path / "in.parquet", 30)
    return tmp_path


def manager_of(root: Path, engine: Any = None) -> JobManager:
    return JobManager(engine or FakeEngine(), JobRoots((str(root),)), 1)


async def until_end(manager: JobManager, job_id: str) -> JobView:
    *_, last = [view async for view in manager.watch(job_id)]
    return last


def kept_state(root: Path, job_id: str) -> str:
    state: str = json.loads((root / ".jobs" / f"{job_id}.json").read_text())["state"]
    return state


def before_writing(monkeypatch: pytest.MonkeyPatch, do: Callable[[str, bytes], None]) -> None:
    """Has something done before each write of a job's file."""
    write = Storage.write

    def changed(storage: Storage, name: str, content: bytes) -> None:
        if name.startswith(".jobs/"):
            do(name, content)
        write(storage, name, content)

    monkeypatch.setattr(Storage, "write", changed)


async def test_job_that_cannot_be_written_down_is_not_known(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(root)

    def fail(name: str, content: bytes) -> None:
        raise TemporaryError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UnavailableError, match="written down"):
        before_writing(patch, fail)
        await manager.submit("j", SPEC)
    assert manager.jobs() == []
    await manager.submit("j", SPEC)
    assert (await until_end(manager, "j")).state == "DONE"
    await manager.close()


async def test_job_whose_caller_goes_away_while_it_is_written_down_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(root)
    loop, is_writing, may_write = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def wait(name: str, content: bytes) -> None:
        loop.call_soon_threadsafe(is_writing.set)
        assert may_write.wait(60)

    before_writing(monkeypatch, wait)
    submitting = asyncio.ensure_future(manager.submit("j", SPEC))
    await is_writing.wait()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    may_write.set()
    assert (await until_end(manager, "j")).state == "DONE"
    await manager.close()


async def test_last_state_is_the_one_that_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is cancelled while it is being written down that it runs."""
    manager = manager_of(root)
    loop, is_writing, may_write = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def wait(name: str, content: bytes) -> None:
        if b'"RUNNING"' in content:
            loop.call_soon_threadsafe(is_writing.set)
            assert may_write.wait(60)

    before_writing(monkeypatch, wait)
    await manager.submit("j", SPEC)
    await is_writing.wait()
    cancelling = asyncio.ensure_future(manager.cancel("j"))
    await asyncio.sleep(0)
    may_write.set()
    assert (await cancelling).state == kept_state(root, "j") == "CANCELLED"
    await manager.close()


async def test_job_that_is_being_written_down_as_done_is_not_cancelled(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(root)
    loop, is_writing, may_write = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def wait(name: str, content: bytes) -> None:
        if b'"DONE"' in content:
            loop.call_soon_threadsafe(is_writing.set)
            assert may_write.wait(60)

    before_writing(monkeypatch, wait)
    await manager.submit("j", SPEC)
    await is_writing.wait()
    cancelling = asyncio.ensure_future(manager.cancel("j"))
    await asyncio.sleep(0)
    may_write.set()
    assert (await cancelling).state == kept_state(root, "j") == "DONE"
    assert manager.stats()["ended"] == {"DONE": 1, "FAILED": 0, "CANCELLED": 0}
    await manager.close()


async def test_job_of_an_earlier_process_waits_for_its_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(FakeEngine):
        asked = 0

        async def describe(self, model: str, version: str) -> ModelInfo:
            self.asked += 1
            if self.asked <= 2:
                raise NotServedError("model 'm' is not there yet")
            return await super().describe(model, version)

    class Never(FakeEngine):
        async def infer(self, model: Any, inputs: Any) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr("penstock.jobs.manager._FIRST_WAIT_S", 0.01)
    first = manager_of(root, Never())
    await first.submit("j", SPEC)
    await first.close()
    second = manager_of(root, Late())
    await second.start()
    assert (await until_end(second, "j")).state == "DONE"
    await second.close()
    assert len(outputs(root / "out")) == 30
