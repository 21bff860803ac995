"""The cache of artifacts: whole or not there, checked, within its bound."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.store.artifacts import Moved
from penstock.store.cache import ArtifactCache, digest_of
from penstock.store.directory import ArtifactDirectory
from penstock.store.failures import CorruptError, StoreError, StoreUnavailableError
from penstock.store.files import SourceFile
from penstock.store.manifest import FileEntry, Manifest
from penstock.store.records import VersionRecord

SIZE = 1000


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactDirectory:
    directory = ArtifactDirectory(tmp_path / "artifacts")
    directory.create()
    return directory


def record(artifacts: ArtifactDirectory, version: int, content: bytes = b"") -> VersionRecord:
    content = content or bytes([version]) * SIZE
    with artifacts.adding():
        files = [SourceFile("version/model.onnx", content), SourceFile("config.pbtxt", b"")]
        manifest = artifacts.add(files)
    return VersionRecord(
        id=version,
        model="m",
        version=version,
        digest=manifest.digest,
        files=manifest.files,
        status="READY",
        reason="",
        created_ms=0,
        updated_ms=0,
    )


def opened(tmp_path: Path, max_bytes: int = 0) -> ArtifactCache:
    cache = ArtifactCache(tmp_path / "cache", max_bytes)
    cache.open()
    return cache


def kept(tmp_path: Path) -> list[int]:
    return sorted(int(p.name.split("-")[1]) for p in (tmp_path / "cache" / "models").iterdir())


def test_fetched_version_lies_as_in_a_repository(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    wanted = record(artifacts, 3)
    root = opened(tmp_path).fetch(wanted, artifacts)
    assert (root / "m" / "3" / "model.onnx").read_bytes() == b"\3" * SIZE
    assert (root / "m" / "config.pbtxt").read_bytes() == b""
    assert digest_of(root, wanted) == wanted.digest


def test_second_fetch_needs_no_store(artifacts: ArtifactDirectory, tmp_path: Path) -> None:
    wanted = record(artifacts, 1)
    cache = opened(tmp_path)
    root = cache.fetch(wanted, artifacts)
    assert cache.fetch(wanted, ArtifactDirectory(tmp_path / "gone")) == root


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_damaged_entry_is_fetched_anew(
    artifacts: ArtifactDirectory, tmp_path: Path, damage: str
) -> None:
    wanted = record(artifacts, 1)
    cache = opened(tmp_path)
    model = cache.fetch(wanted, artifacts) / "m" / "1" / "model.onnx"
    if damage == "change":
        model.write_bytes(b"x")
    else:
        model.unlink()
    cache.fetch(wanted, artifacts)
    assert model.read_bytes() == b"\1" * SIZE


def test_damaged_artifact_never_gets_a_name(artifacts: ArtifactDirectory, tmp_path: Path) -> None:
    wanted = record(artifacts, 1)
    sha256 = next(e.sha256 for e in wanted.files if e.size_bytes)
    blob = artifacts.root / "blobs" / sha256[:2] / sha256
    blob.chmod(0o644)
    blob.write_bytes(b"x" * SIZE)
    cache = opened(tmp_path)
    with pytest.raises(CorruptError):
        cache.fetch(wanted, artifacts)
    assert kept(tmp_path) == []
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def test_what_was_not_used_for_longest_goes_first(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    cache = opened(tmp_path, max_bytes=3 * SIZE)
    versions = [record(artifacts, number) for number in range(1, 5)]
    for age, version in enumerate(versions[:3]):
        root = cache.fetch(version, artifacts)
        cache.release(version)
        os.utime(root, ns=(age, age))
    cache.fetch(versions[0], artifacts)
    cache.release(versions[0])
    cache.fetch(versions[3], artifacts)
    assert kept(tmp_path) == [1, 3, 4]


def test_what_is_in_use_stays_also_for_other_servers(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    mine, other = opened(tmp_path, 2 * SIZE), opened(tmp_path, 2 * SIZE)
    first, second, third = (record(artifacts, number) for number in (1, 2, 3))
    mine.fetch(first, artifacts)
    other.fetch(second, artifacts)
    with pytest.raises(StoreError, match="the cache has no room: 1000 bytes needed, 0 free"):
        mine.fetch(third, artifacts)
    other.release(second)
    mine.fetch(third, artifacts)
    assert kept(tmp_path) == [1, 3]


def test_version_that_another_server_fetched_meanwhile_is_used(
    artifacts: ArtifactDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = record(artifacts, 1)
    mine, other = opened(tmp_path), opened(tmp_path)
    read = artifacts.manifest

    def manifest(digest: str) -> Manifest:
        monkeypatch.setattr(artifacts, "manifest", read)
        other.fetch(wanted, artifacts)
        return read(digest)

    monkeypatch.setattr(artifacts, "manifest", manifest)
    assert (mine.fetch(wanted, artifacts) / "m" / "1" / "model.onnx").is_file()
    assert kept(tmp_path) == [1]
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


@pytest.mark.parametrize("max_bytes", [0, 100 * SIZE])
def test_versions_that_come_and_go_do_not_disturb_each_other(
    artifacts: ArtifactDirectory, tmp_path: Path, max_bytes: int
) -> None:
    records = [record(artifacts, version) for version in range(1, 81)]
    caches = [opened(tmp_path, max_bytes), opened(tmp_path, max_bytes)]

    def fetch(turn: int) -> int:
        server, number = divmod(turn, len(records))
        caches[server].fetch(records[number], artifacts)
        caches[server].release(records[number])
        return records[number].version

    with ThreadPoolExecutor(4) as pool:
        both = [turn for number in range(80) for turn in (number, number + 80)]
        fetched = list(pool.map(fetch, both))
    assert sorted(fetched) == sorted(2 * [each.version for each in records])


def test_release_and_close_do_not_wait_for_a_fetch(
    artifacts: ArtifactDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = record(artifacts, 1), record(artifacts, 2)
    cache = opened(tmp_path)
    cache.fetch(first, artifacts)
    read, begun, go_on = artifacts.manifest, threading.Event(), threading.Event()

    def manifest(digest: str) -> Manifest:
        begun.set()
        assert go_on.wait(60)
        return read(digest)

    monkeypatch.setattr(artifacts, "manifest", manifest)
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(cache.fetch, second, artifacts)
        assert begun.wait(60)
        cache.release(first)
        cache.close()
        assert not fetching.done()
        go_on.set()
        with pytest.raises(StoreUnavailableError, match="closed"):
            fetching.result()
    assert cache._in_use == {}


def test_file_that_nobody_pushed_is_not_served(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    wanted = record(artifacts, 1)
    added = opened(tmp_path).fetch(wanted, artifacts) / "m" / "1" / "more.py"
    added.write_text("x")
    opened(tmp_path).fetch(wanted, artifacts)
    assert not added.exists()


def test_next_start_removes_what_a_killed_fetch_left(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "tmp" / "half" / "m"
    left.mkdir(parents=True)
    (left / "x").write_text("x")
    opened(tmp_path)
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def partial(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "partial").iterdir())


def test_fetch_that_was_cut_off_goes_on_with_what_is_right(
    artifacts: ArtifactDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = record(artifacts, 1)
    cache = opened(tmp_path)
    copy = artifacts.copy_out

    def cut_off(entry: FileEntry, target: Path, moved: Moved) -> None:
        if entry.path == "version/model.onnx":
            target.write_bytes(b"x" * SIZE)
            raise StoreUnavailableError("it went away")
        copy(entry, target, moved)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "copy_out", cut_off)
        with pytest.raises(StoreUnavailableError):
            cache.fetch(wanted, artifacts)
    (left,) = partial(tmp_path)
    inode = (left / "m" / "config.pbtxt").stat().st_ino
    root = opened(tmp_path).fetch(wanted, artifacts)
    assert (root / "m" / "config.pbtxt").stat().st_ino == inode
    assert (root / "m" / "1" / "model.onnx").read_bytes() == b"\1" * SIZE
    assert partial(tmp_path) == []


def test_what_was_cut_off_goes_for_others_and_after_a_week(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    cache = opened(tmp_path, max_bytes=SIZE)
    left = tmp_path / "cache" / "partial" / "left"
    for age in (0, 8 * 86400):
        left.mkdir()
        (left / "x").write_bytes(b"x" * SIZE)
        os.utime(left, (time.time() - age, time.time() - age))
        opened(tmp_path)
        assert left.exists() == (age == 0)
        wanted = record(artifacts, 1)
        cache.fetch(wanted, artifacts)
        assert not left.exists()


def test_close_ends_a_fetch_at_its_next_piece_and_keeps_what_is_there(
    artifacts: ArtifactDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = record(artifacts, 1)
    cache = opened(tmp_path)
    copy_out = ArtifactDirectory.copy_out
    copied: list[str] = []

    def closing(self: ArtifactDirectory, entry: FileEntry, target: Path, moved: Moved) -> None:
        cache.close()
        copied.append(entry.path)
        copy_out(self, entry, target, moved)

    monkeypatch.setattr(ArtifactDirectory, "copy_out", closing)
    with pytest.raises(StoreUnavailableError, match="cache of artifacts is closed"):
        cache.fetch(wanted, artifacts)
    assert len(copied) == 1
    assert len(list((tmp_path / "cache" / "partial").iterdir())) == 1
