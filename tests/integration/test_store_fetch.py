"""`penstock fetch`: out of the store, whole or not at all, and on from where it was cut off."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.buckets import Buckets, bucket
from tests.support.cli import penstock
from tests.support.stores import push

from penstock.store.bucket import Bucket
from penstock.store.failures import CorruptError, RefusedError
from penstock.store.fetching import fetch_version
from penstock.store.objects import ArtifactObjects
from penstock.store.records import Reference
from penstock.store.store import open_store

pytestmark = pytest.mark.any_transport

__all__ = ["bucket"]

FETCH = """
import os, signal, sys
from pathlib import Path
from penstock.store.bucket import Bucket
from penstock.store.fetching import fetch_version
from penstock.store.records import Reference
from penstock.store.store import open_store

left = int(sys.argv[3])

def moved(_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

with open_store(sys.argv[1]) as store:
    fetch_version(store.artifacts, store.show(Reference("m")), Path(sys.argv[2]), moved)
"""


def test_fetch_that_was_killed_asks_only_for_the_pieces_that_are_missing(
    bucket: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket.store_url(f"sqlite:///{tmp_path}/s.db")
    content = os.urandom(20_500)
    with open_store(url, may_create=True) as store:
        assert isinstance(store.artifacts, ArtifactObjects)
        store.artifacts._piece_bytes = 1000
        record = push(store, content=content)
        command = [sys.executable, "-c", FETCH, url, str(tmp_path / "models"), "11"]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert not (tmp_path / "models" / "m").exists()
        asked: list[str] = []
        get = Bucket.get

        def counted(self: Bucket, key: str, limit_bytes: int) -> bytes | None:
            asked.append(key)
            return get(self, key, limit_bytes)

        monkeypatch.setattr(Bucket, "get", counted)
        target = fetch_version(store.artifacts, record, tmp_path / "models")
    assert (target / "1" / "model.onnx").read_bytes() == content
    assert sum(key.startswith("pieces/") for key in asked) == 21 - 11
    assert [each.name for each in (tmp_path / "models").iterdir()] == ["m"]


def test_what_is_there_is_not_replaced_and_damage_is_not_fetched(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), may_create=True) as store:
        record = push(store, content=b"first")
        fetch_version(store.artifacts, record, tmp_path)
        with pytest.raises(RefusedError, match="'.*/m' is there already"):
            fetch_version(store.artifacts, record, tmp_path)
        second = push(store, content=b"second")
        sha256 = second.files[0].sha256
        blob = tmp_path / "store" / "artifacts" / "blobs" / sha256[:2] / sha256
        blob.chmod(0o644)
        blob.write_bytes(b"other.")
        with pytest.raises(CorruptError, match="expected 6 bytes with SHA-256"):
            fetch_version(store.artifacts, second, tmp_path / "other")
        assert not (tmp_path / "other" / "m").exists()


def test_fetch_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    with open_store(str(tmp_path / "store"), may_create=True) as store:
        record = push(store)
        monkeypatch.setattr(os, "fsync", noted)
        fetch_version(store.artifacts, record, tmp_path / "models")
    names = [each.relative_to(tmp_path / "models").parts for each in synced]
    (hidden,) = {each[0] for each in names if each}
    assert hidden.endswith(".part")  # what it was called when it was flushed
    assert names == [(hidden, "1", "model.onnx"), (hidden, "1"), (hidden,), ()]


def test_fetch_that_another_one_has_finished_meanwhile_leaves_that_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(str(tmp_path / "store"), may_create=True) as store:
        record = push(store)
        flock = fcntl.flock

        def late(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            fetch_version(store.artifacts, record, tmp_path / "models")
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", late)
        with pytest.raises(RefusedError, match="another process fetches m@1"):
            fetch_version(store.artifacts, record, tmp_path / "models")
    assert [each.name for each in (tmp_path / "models").iterdir()] == ["m"]


def on_terminal(*arguments: str) -> tuple[int, str]:
    """What a command writes to stderr, which is a terminal."""
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "penstock", *arguments]
    settings: dict[str, Any] = {"env": {**os.environ, "TERM": "xterm", "COLUMNS": "120"}}
    with subprocess.Popen(command, stderr=writer, stdout=subprocess.PIPE, **settings) as process:
        os.close(writer)
        text = b""
        try:
            while piece := os.read(reader, 4096):
                text += piece
        except OSError:  # how the end of a terminal reads
            pass
        code = process.wait()
    os.close(reader)
    return code, text.decode()


async def test_fetch_command_shows_its_progress_on_a_terminal_only(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    with open_store(url, may_create=True) as store:
        push(store, content=b"x" * (3 << 20))
    code, shown = on_terminal("fetch", "m@1", str(tmp_path / "one"), "--store", url)
    assert code == 0
    assert "m@1" in shown and "3.0/3.0 MiB" in shown
    end = await penstock("fetch", "m@1", str(tmp_path / "two"), "--store", url)
    assert (end.code, end.err) == (0, "")
    for name in ("one", "two"):
        assert (tmp_path / name / "m" / "1" / "model.onnx").stat().st_size == 3 << 20
    with open_store(url) as store:
        assert end.out.split()[:2] == ["m@1", store.show(Reference("m")).digest]
