"""Copies are whole and hashed, whether the kernel makes them, a part of them or none."""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.store import copying
from penstock.store.copying import copy_file

CopyRange = Callable[[int, int, int], int]


def copied(tmp_path: Path, content: bytes, moved: list[int] | None = None) -> tuple[int, str]:
    """What is said of a copy, which was checked."""
    (tmp_path / "source").write_bytes(content)
    with (
        open(tmp_path / "source", "rb", buffering=0) as source,
        open(tmp_path / "target", "x+b", buffering=0) as target,
    ):
        found = copy_file(source, target, ([] if moved is None else moved).append)
    assert (tmp_path / "target").read_bytes() == content
    return found


def of(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def test_kernel_copies_what_is_large_and_its_bytes_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, moved = os.urandom((20 << 20) + 7), list[int]()
    written: list[int] = []
    monkeypatch.setattr(copying, "write_all", lambda _, piece: written.append(len(piece)))
    assert copied(tmp_path, content, moved) == of(content)
    assert sum(moved) == len(content) and sum(written) == 0


def refuse(_source: int, _target: int, _count: int) -> int:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def forbid(_source: int, _target: int, _count: int) -> int:
    raise OSError(errno.EPERM, "Operation not permitted")


def take_none(_source: int, _target: int, _count: int) -> int:
    return 0


def take_some() -> CopyRange:
    """As a file system that copies a little and then does not any more."""
    calls = 0
    really: CopyRange = os.copy_file_range

    def some(source: int, target: int, count: int) -> int:
        nonlocal calls
        calls += 1
        return really(source, target, 5000) if calls < 3 else refuse(source, target, count)

    return some


@pytest.mark.parametrize("call", [refuse, forbid, take_none, take_some()])
def test_what_the_kernel_does_not_copy_is_copied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: CopyRange
) -> None:
    monkeypatch.setattr(os, "copy_file_range", call)
    content, moved = os.urandom((9 << 20) + 1), list[int]()
    assert copied(tmp_path, content, moved) == of(content)
    assert sum(moved) == len(content)


def test_full_disk_ends_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: int, _target: int, _count: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        copied(tmp_path, bytes(5 << 20))


def test_digest_is_that_of_the_target_and_not_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel, or a disk, that writes something else than it read."""
    really: CopyRange = os.copy_file_range

    def wrong(source: int, target: int, count: int) -> int:
        done = really(source, target, count)
        if done:
            os.pwrite(target, b"x", 3)
        return done

    monkeypatch.setattr(os, "copy_file_range", wrong)
    (tmp_path / "source").write_bytes(bytes(5 << 20))
    source, target = io.FileIO(tmp_path / "source"), io.FileIO(tmp_path / "target", "x+")
    with source, target:
        found = copy_file(source, target)
    assert found == of(bytes(3) + b"x" + bytes((5 << 20) - 4))


def test_whoever_is_told_of_bytes_may_end_a_copy(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise InterruptedError("enough")

    (tmp_path / "source").write_bytes(bytes(9 << 20))
    source, target = io.FileIO(tmp_path / "source"), io.FileIO(tmp_path / "target", "x+")
    with source, target, pytest.raises(InterruptedError, match="enough"):
        copy_file(source, target, stop)
