"""A file that is read anew when it changes."""

import asyncio
from pathlib import Path

import pytest
from tests.support.access_files import write_text

from penstock.access.watch import FileWatch
from penstock.errors import ConfigError


class Reader:
    """Reads a file that must not be empty, nor hold "defect"; says when it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self) -> None:
        text = self.path.read_text() if self.path.exists() else ""
        self.loop.call_soon_threadsafe(self.texts.put_nowait, text)
        if text == "defect":
            raise KeyError(text)
        if not text:
            raise ConfigError([f"{self.path}: it is empty"])

    async def next(self) -> str:
        async with asyncio.timeout(60):
            return await self.texts.get()


async def test_change_is_read_and_a_bad_one_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    write_text(path, "1")
    reader = Reader(path)
    watch = FileWatch(path, 0.01, reader)
    watch.load()
    watch.start()
    try:
        assert await reader.next() == "1"
        write_text(path, "22")
        assert await reader.next() == "22"
        write_text(path, "")
        assert await reader.next() == ""
        path.unlink()
        assert await reader.next() == ""
        write_text(path, "333")
        assert await reader.next() == "333"
    finally:
        await watch.stop()
    assert "what was read before stays in force" in caplog.text
    assert reader.texts.empty(), "what does not change is not read"


async def test_first_load_tells_its_fault(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(ConfigError, match="it is empty"):
        FileWatch(path, 0.01, Reader(path)).load()


async def test_defect_of_the_reader_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    write_text(path, "1")
    reader = Reader(path)
    watch = FileWatch(path, 0.01, reader)
    watch.load()
    watch.start()
    try:
        assert await reader.next() == "1"
        write_text(path, "defect")
        assert await reader.next() == "defect"
        write_text(path, "good again")
        assert await reader.next() == "good again"
    finally:
        await watch.stop()
    assert "KeyError" in caplog.text
