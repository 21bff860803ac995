"""What an artifact may be made of, and that its bytes are whole or not there."""

import os
from pathlib import Path

import pytest

from penstock.store.directory import ArtifactDirectory
from penstock.store.failures import CorruptError, RefusedError, StoreError
from penstock.store.files import SourceFile, hash_file, list_files, open_source, os_failure
from penstock.store.manifest import FileEntry


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactDirectory:
    directory = ArtifactDirectory(tmp_path / "artifacts")
    directory.create()
    return directory


def stored(artifacts: ArtifactDirectory) -> set[str]:
    return set(artifacts.names())


def test_listing_has_every_file_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("z", "a/.hidden", "a/b/c"):
        (tmp_path / name).write_text("x")
    assert list_files(tmp_path) == ["a/.hidden", "a/b/c", "z"]


def test_listing_refuses_a_link_even_to_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(RefusedError, match="'b' is a symbolic link"):
        list_files(tmp_path)


def test_listing_refuses_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(RefusedError, match="'p' is neither a file nor a directory"):
        list_files(tmp_path)


def test_link_and_pipe_that_took_a_files_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(RefusedError, match="not a regular file"):
            open_source(tmp_path / name)


def test_directories_nested_too_deep_are_refused(tmp_path: Path) -> None:
    deep = tmp_path / "/".join("d" * 40)
    deep.mkdir(parents=True)
    with pytest.raises(RefusedError, match="deeper than 32"):
        list_files(tmp_path)


def test_artifact_is_its_manifest_and_its_files(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    (tmp_path / "m").write_bytes(b"x" * 3_000_000)
    with artifacts.adding():
        manifest = artifacts.add([SourceFile("v/m", tmp_path / "m"), SourceFile("c", b"text")])
    assert artifacts.manifest(manifest.digest) == manifest
    assert stored(artifacts) == {manifest.digest[7:], *(each.sha256 for each in manifest.files)}
    for entry in manifest.files:
        target = tmp_path / entry.sha256
        artifacts.copy_out(entry, target)
        assert hash_file(target) == (entry.size_bytes, entry.sha256)


@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (40 << 20) + 5])
def test_file_of_any_size_goes_in_and_comes_out_as_it_was(
    artifacts: ArtifactDirectory, tmp_path: Path, size: int
) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(size))
    moved: list[int] = []
    with artifacts.adding():
        entry = artifacts.add_file(SourceFile("version/model.onnx", source), moved.append)
    artifacts.copy_out(entry, copy, moved.append)
    assert (entry.size_bytes, entry.sha256) == hash_file(source)
    assert copy.read_bytes() == source.read_bytes()
    assert sum(moved) == 2 * size


def test_same_content_is_stored_once(artifacts: ArtifactDirectory) -> None:
    with artifacts.adding():
        first = artifacts.add([SourceFile("a", b"same")])
        second = artifacts.add([SourceFile("b", b"same")])
    assert len(stored(artifacts)) == 3
    assert first.digest != second.digest


def damage(artifacts: ArtifactDirectory, entry: FileEntry, content: bytes) -> None:
    path = artifacts.root / "blobs" / entry.sha256[:2] / entry.sha256
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize("content", [b"sAme", b"sam", b""])
def test_damaged_blob_is_never_handed_out_as_whole(
    artifacts: ArtifactDirectory, tmp_path: Path, content: bytes
) -> None:
    with artifacts.adding():
        (entry,) = artifacts.add([SourceFile("a", b"same")]).files
    damage(artifacts, entry, content)
    with pytest.raises(CorruptError, match="'a': expected 4 bytes"):
        artifacts.copy_out(entry, tmp_path / "out")
    with pytest.raises(CorruptError, match="'a': expected 4 bytes"):
        artifacts.check(entry)
    assert artifacts.quarantine(entry.sha256, lambda: artifacts.check(entry))
    with pytest.raises(CorruptError, match="missing"):
        artifacts.check(entry)


def test_push_of_the_same_content_heals_a_damaged_blob(artifacts: ArtifactDirectory) -> None:
    with artifacts.adding():
        (entry,) = artifacts.add([SourceFile("a", b"same")]).files
    damage(artifacts, entry, b"other")
    with artifacts.adding():
        artifacts.add([SourceFile("a", b"same")])
    artifacts.check(entry)


def test_manifest_under_anothers_digest_is_refused(artifacts: ArtifactDirectory) -> None:
    with artifacts.adding():
        first = artifacts.add([SourceFile("a", b"1")])
        second = artifacts.add([SourceFile("a", b"2")])
    damage(artifacts, FileEntry("", 0, first.digest[7:]), second.text.encode())
    with pytest.raises(CorruptError, match="has the SHA-256"):
        artifacts.manifest(first.digest)


def test_next_adder_removes_what_a_killed_one_left(artifacts: ArtifactDirectory) -> None:
    left = artifacts.root / "tmp" / "half"
    left.write_bytes(b"x")
    with artifacts.adding():
        assert not left.exists()


def test_nothing_is_cleaned_while_somebody_adds(artifacts: ArtifactDirectory) -> None:
    other = ArtifactDirectory(artifacts.root)
    with artifacts.adding():
        writing = artifacts.root / "tmp" / "half"
        writing.write_bytes(b"x")
        artifacts.add([SourceFile("a", b"1")])
        with other.adding():
            assert writing.exists()
        assert other.clean(lambda _: False) == []
    assert len(other.clean(lambda _: False)) == 2
    assert stored(artifacts) == set() and not writing.exists()


def test_source_that_cannot_be_read_leaves_nothing(
    artifacts: ArtifactDirectory, tmp_path: Path
) -> None:
    with artifacts.adding(), pytest.raises(StoreError, match="cannot read 'gone'"):
        artifacts.add([SourceFile("a", tmp_path / "gone")])
    assert stored(artifacts) == set()
    assert list((artifacts.root / "tmp").iterdir()) == []


def test_full_disk_is_told_without_a_path() -> None:
    error = os_failure("cannot store 'a'", OSError(28, "No space left on device", "/secret/path"))
    assert str(error) == "cannot store 'a': no space left on device; nothing was changed"
