"""Edits a model repository at random, as careless people and broken scripts would."""

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tests.support.models.onnx_files import add_constant

STEADY = "steady"
"""The model that is edited like the others, but never removed: it must always be served."""
MODELS = (STEADY, "first", "second")
FORBIDDEN = 666.0
"""What the model outside of the repository adds; nobody may ever get it."""

CONFIGS = (
    "",
    "max_batch_size: 4",
    "max_batch_size: 8 dynamic_batching { }",
    "version_policy { all { } }",
    "version_policy { latest { num_versions: 2 } }",
    "instance_group [{ count: 2 }]",
)
BAD_CONFIGS = ("no_such_field: 1", "max_batch_size: ", 'backend: "nobody"', "\xff", "input { }")
GARBAGE = (b"", b"%PDF-1.7", b"\x08\x07\x12" + b"\xff" * 64, b"<html></html>")


class RepositoryEditor:
    """One edit at a time. `poll` is awaited where a server may look at a half-done edit.

    Each whole model file adds a number of its own to its input, so that an answer tells the file;
    `written` has those that were ever written, by model and version.
    """

    def __init__(
        self,
        repository: Path,
        outside: Path,
        rng: random.Random,
        poll: Callable[[], Awaitable[None]],
    ) -> None:
        self.repository = repository
        self.written: defaultdict[tuple[str, str], set[float]] = defaultdict(set)
        self._outside = outside
        self._rng = rng
        self._poll = poll
        self._constants = iter(range(1, 1 << 20))
        self._times: Iterator[int] = iter(range(1_700_000_000_000_000_000, 1 << 62, 1_000_000))
        self._put(outside / "1" / "model.onnx", add_constant(FORBIDDEN).SerializeToString())
        for model in MODELS:
            self._write_version(self.repository / model, 1)
        self._edits = [
            *[self._publish_version] * 4,
            *[self._rewrite_in_pieces, self._replace_file, self._edit_config] * 3,
            *[self._break_config, self._cut_off, self._write_garbage, self._remove_version],
            *[self._link_file_out, self._link_version_out, self._link_in_circles, self._add_pipe],
            *[self._remove_model, self._touch, self._take_repository_away],
        ]

    async def edit(self) -> None:
        """One edit of one model."""
        model = self._rng.choice(MODELS)
        await self._rng.choice(self._edits)(self.repository / model)

    def mend(self) -> dict[str, dict[str, float]]:
        """Makes every directory good, but for one, which goes; what must be served in the end."""
        shutil.rmtree(self.repository / MODELS[-1], ignore_errors=True)
        return {model: self._mend(self.repository / model) for model in MODELS[:-1]}

    def _mend(self, folder: Path) -> dict[str, float]:
        for path in folder.iterdir() if folder.exists() else ():
            if path.is_symlink() or not path.is_dir():
                path.unlink()
        versions = sorted(int(path.name) for path in self._versions(folder))[-3:] or [1]
        for path in self._versions(folder):
            if int(path.name) not in versions:
                shutil.rmtree(path)
        self._put(folder / "config.pbtxt", b"version_policy { all { } }")
        return {str(version): self._write_version(folder, version) for version in versions}

    async def _publish_version(self, folder: Path) -> None:
        """As the README recommends."""
        version = max([int(path.name) for path in self._versions(folder)], default=0) + 1
        self._write_version(folder / ".incoming", version, owner=folder.name)
        await self._maybe_poll()
        (folder / ".incoming" / str(version)).rename(folder / str(version))

    async def _rewrite_in_pieces(self, folder: Path) -> None:
        file, data = self._new_file(folder)
        cut = self._rng.randrange(len(data))
        self._put(file, data[:cut])
        await self._maybe_poll()
        self._put(file, data)

    async def _replace_file(self, folder: Path) -> None:
        file, data = self._new_file(folder)
        self._put(file.with_name("incoming"), data)
        await self._maybe_poll()
        file.with_name("incoming").rename(file)

    async def _edit_config(self, folder: Path) -> None:
        self._put(folder / "config.pbtxt", self._rng.choice(CONFIGS).encode())

    async def _break_config(self, folder: Path) -> None:
        self._put(folder / "config.pbtxt", self._rng.choice(BAD_CONFIGS).encode("latin-1"))

    async def _cut_off(self, folder: Path) -> None:
        file, data = self._new_file(folder)
        self._put(file, data[: self._rng.randrange(len(data))])

    async def _write_garbage(self, folder: Path) -> None:
        file, _ = self._new_file(folder)
        self._put(file, self._rng.choice(GARBAGE))

    async def _remove_version(self, folder: Path) -> None:
        versions = self._versions(folder)
        if versions:
            self._remove(self._rng.choice(versions))

    async def _remove_model(self, folder: Path) -> None:
        if folder.name != STEADY:
            shutil.rmtree(folder, ignore_errors=True)

    async def _link_file_out(self, folder: Path) -> None:
        file, _ = self._new_file(folder)
        file.unlink(missing_ok=True)
        file.symlink_to(self._outside / "1" / "model.onnx")

    async def _link_version_out(self, folder: Path) -> None:
        version = max([int(path.name) for path in self._versions(folder)], default=0) + 1
        os.makedirs(folder, exist_ok=True)
        (folder / str(version)).symlink_to(self._outside / "1")

    async def _link_in_circles(self, folder: Path) -> None:
        file, _ = self._new_file(folder)
        for link in (file.with_name("up"), self.repository / "circle"):
            link.unlink(missing_ok=True)
            link.symlink_to(self._rng.choice([".", "..", link.name]))

    async def _add_pipe(self, folder: Path) -> None:
        file, _ = self._new_file(folder)
        path = self._rng.choice([file, folder / "config.pbtxt"])
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    async def _touch(self, folder: Path) -> None:
        for path in self._versions(folder):
            if (path / "model.onnx").is_file():
                self._stamp(path / "model.onnx")

    async def _take_repository_away(self, _: Path) -> None:
        away = self.repository.with_name("away")
        self.repository.rename(away)
        await self._maybe_poll()
        self.repository.mkdir()
        await self._maybe_poll()
        self.repository.rmdir()
        away.rename(self.repository)

    async def _maybe_poll(self) -> None:
        for _ in range(self._rng.choice([0, 0, 1, 2])):
            await self._poll()

    def _versions(self, folder: Path) -> list[Path]:
        names = os.listdir(folder) if folder.exists() else []
        return [folder / name for name in sorted(names) if name.isdigit()]

    def _new_file(self, folder: Path) -> tuple[Path, bytes]:
        """The file of some version of the model, and what may be written there."""
        version = self._rng.choice(self._versions(folder) or [folder / "1"])
        if version.is_symlink():
            version.unlink()
        file = version / "model.onnx"
        if file.is_symlink() or (file.exists() and not file.is_file()):
            self._remove(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file, self._data(folder.name, version.name)

    def _data(self, model: str, version: str) -> bytes:
        constant = float(next(self._constants))
        self.written[model, version].add(constant)
        data: bytes = add_constant(constant).SerializeToString()
        return data

    def _write_version(self, folder: Path, version: int, owner: str = "") -> float:
        file = folder / str(version) / "model.onnx"
        self._remove(file)
        data = self._data(owner or folder.name, str(version))
        self._put(file, data)
        return max(self.written[owner or folder.name, str(version)])

    def _put(self, path: Path, data: bytes) -> None:
        if path.is_symlink() or path.is_fifo():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._stamp(path)

    def _stamp(self, path: Path) -> None:
        """A time that no other file has: here polls are closer than ticks of the system's clock."""
        time = next(self._times)
        os.utime(path, ns=(time, time))

    def _remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
