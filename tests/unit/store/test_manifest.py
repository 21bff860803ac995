"""Manifests: one text for the same files, and no path that leads elsewhere."""

import pytest

from penstock.store.failures import CorruptError, RefusedError
from penstock.store.manifest import MAX_FILES, FileEntry, Manifest, path_fault, read_manifest

A = "a" * 64
B = "b" * 64


def test_digest_is_of_the_sorted_listing() -> None:
    files = [FileEntry("v/b", 2, B), FileEntry("a", 1, A)]
    manifest = Manifest.of(files)
    assert manifest.text == f"penstock manifest 1\n{A} 1 a\n{B} 2 v/b\n"
    assert manifest.digest == Manifest.of(reversed(files)).digest
    assert manifest.size_bytes == 3


@pytest.mark.parametrize(
    "other", [FileEntry("a", 2, A), FileEntry("b", 1, A), FileEntry("a", 1, B)]
)
def test_digest_changes_with_name_size_and_content(other: FileEntry) -> None:
    assert Manifest.of([other]).digest != Manifest.of([FileEntry("a", 1, A)]).digest


def test_what_is_written_is_read() -> None:
    manifest = Manifest.of([FileEntry("1/model é.onnx", 10, A), FileEntry("c d", 0, B)])
    assert read_manifest(manifest.text) == manifest


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\nb", "a\0b", "x" * 1025]
    + ["/".join("a" * 40), "\udcff"],
)
def test_path_that_is_not_plain_is_refused(path: str) -> None:
    assert path_fault(path)
    with pytest.raises(RefusedError):
        Manifest.of([FileEntry(path, 1, A)])


def test_file_that_is_also_a_directory_is_refused() -> None:
    with pytest.raises(RefusedError, match="'a' is a file and a directory"):
        Manifest.of([FileEntry("a", 1, A), FileEntry("a/b", 1, A)])


def test_no_files_too_many_and_the_same_twice_are_refused() -> None:
    with pytest.raises(RefusedError, match="no files"):
        Manifest.of([])
    with pytest.raises(RefusedError, match="at most 10000"):
        Manifest.of([FileEntry(str(n), 1, A) for n in range(MAX_FILES + 1)])
    with pytest.raises(RefusedError, match="twice"):
        Manifest.of([FileEntry("a", 1, A), FileEntry("a", 1, B)])


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "begin and end"),
        ("penstock manifest 1\n", "line ''"),
        (f"penstock manifest 1\n{A} 1 a", "begin and end"),
        (f"penstock manifest 1\n{A} 01 a\n", "line"),
        (f"penstock manifest 1\n{A[1:]} 1 a\n", "line"),
        (f"penstock manifest 1\n{A} 1 ../a\n", "not a plain path"),
        (f"penstock manifest 1\n{B} 2 b\n{A} 1 a\n", "not sorted"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: str, fragment: str) -> None:
    with pytest.raises(CorruptError, match=fragment):
        read_manifest(text)
