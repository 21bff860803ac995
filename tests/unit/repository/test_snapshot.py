"""Snapshots of directories: what changes them, what does not, and what cannot be told."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fake_engine import add_model

from penstock.errors import StartupError
from penstock.repository.layout import list_models
from penstock.repository.snapshot import ModelSnapshot, RepositoryScanner


def paths(snapshot: ModelSnapshot) -> list[str]:
    return [entry.path for entry in snapshot.entries]


def rewrite(path: Path) -> None:
    """In place, to the same size, with the next time."""
    status = path.stat()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def rewrite_keeping_time(path: Path) -> None:
    """In place, to the same size, with the time it had: as `cp -p` and `tar` leave it."""
    status = path.stat()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """By a file of the same size and time."""
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "rewritten": lambda model: rewrite(model / "1" / "model.onnx"),
    "rewritten with its old time": lambda model: rewrite_keeping_time(model / "1" / "model.onnx"),
    "replaced by rename": lambda model: replace(model / "1" / "model.onnx"),
    "longer": lambda model: (model / "1" / "model.onnx").write_text("{} and more"),
    "file removed": lambda model: (model / "1" / "model.onnx").unlink(),
    "file added": lambda model: (model / "1" / ".data").touch(),
    "config added": lambda model: (model / "config.pbtxt").touch(),
    "empty version added": lambda model: (model / "2").mkdir(),
    "made unreadable": lambda model: (model / "1" / "model.onnx").chmod(0),
    "link added": lambda model: (model / "labels.txt").symlink_to("/nowhere"),
    "pipe added": lambda model: os.mkfifo(model / "labels.txt"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_seen(tmp_path: Path, change: str) -> None:
    model = add_model(tmp_path, "m")
    scanner = RepositoryScanner([tmp_path])
    before = scanner.scan()
    assert before == scanner.scan()
    CHANGES[change](model)
    after = scanner.scan()
    assert before.models != after.models
    assert after == scanner.scan()


def test_hidden_entries_beside_the_versions_are_not_looked_at(tmp_path: Path) -> None:
    model = add_model(tmp_path, "m")
    scanner = RepositoryScanner([tmp_path])
    before = scanner.scan()
    add_model(model, ".incoming", versions=(2,))
    add_model(tmp_path, ".next")
    assert scanner.scan().models == before.models


def test_every_file_and_directory_is_noted(tmp_path: Path) -> None:
    add_model(tmp_path, "m", versions=(1, 2), config="")
    (model,) = RepositoryScanner([tmp_path]).scan().models.values()
    files = ["0:m", "0:m/1", "0:m/1/model.onnx", "0:m/2", "0:m/2/model.onnx", "0:m/config.pbtxt"]
    assert paths(model) == files


def test_model_in_two_repositories_is_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_model(tmp_path / name, "m")
    scanner = RepositoryScanner([tmp_path / "one", tmp_path / "two"])
    (model,) = scanner.scan().models.values()
    assert [path for path in paths(model) if path.endswith("onnx")] == [
        "0:m/1/model.onnx",
        "1:m/1/model.onnx",
    ]


def test_link_within_the_repository_is_followed(tmp_path: Path) -> None:
    shared = add_model(tmp_path, ".shared") / "1" / "model.onnx"
    model = add_model(tmp_path, "m")
    (model / "1" / "model.onnx").unlink()
    (model / "1" / "model.onnx").symlink_to(shared)
    scanner = RepositoryScanner([tmp_path])
    before = scanner.scan()
    rewrite(shared)
    assert scanner.scan().models != before.models


@pytest.mark.parametrize("leaving", ["file", "version", "model"])
def test_link_out_of_the_repository_is_noted_and_not_followed(tmp_path: Path, leaving: str) -> None:
    outside = add_model(tmp_path / "outside", "m")
    model = tmp_path / "models" / "m"
    links = {
        "file": (model / "1" / "model.onnx", outside / "1" / "model.onnx"),
        "version": (model / "1", outside / "1"),
        "model": (model, outside),
    }
    link, target = links[leaving]
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    scanner = RepositoryScanner([tmp_path / "models"])
    before = scanner.scan()
    rewrite(outside / "1" / "model.onnx")
    assert scanner.scan() == before
    assert before.models["m"].entries[-1].kind == "link"
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    assert scanner.scan_model("m") != before.models["m"]


def test_links_in_circles_end(tmp_path: Path) -> None:
    model = add_model(tmp_path, "m")
    (model / "1" / "up").symlink_to("..")
    (model / "1" / "self").symlink_to("self")
    (tmp_path / "circle").symlink_to("circle")
    snapshot = RepositoryScanner([tmp_path]).scan()
    assert list(snapshot.models) == list_models([tmp_path]) == ["m"]
    assert not snapshot.models["m"].fault
    assert "0:m/1/up" in paths(snapshot.models["m"])


def test_too_many_files_are_a_fault_of_the_model_alone(tmp_path: Path) -> None:
    add_model(tmp_path, "few")
    add_model(tmp_path, "many", versions=range(1, 20))
    models = RepositoryScanner([tmp_path], max_entries=10).scan().models
    assert models["many"] == ModelSnapshot(fault="it has more than 10 files and directories")
    assert not models["few"].fault


def test_directories_nested_without_end_are_a_fault(tmp_path: Path) -> None:
    (add_model(tmp_path, "m") / "/".join(["d"] * 40)).mkdir(parents=True)
    assert "nested deeper than 32" in RepositoryScanner([tmp_path]).scan_model("m").fault


def test_model_that_is_not_there_has_no_entries(tmp_path: Path) -> None:
    assert RepositoryScanner([tmp_path]).scan_model("m") == ModelSnapshot()


def test_repository_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot read model repository .*nowhere"):
        RepositoryScanner([tmp_path, tmp_path / "nowhere"]).scan()


def test_root_tells_one_directory_from_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add_model(tmp_path / name, "m")
    a, b = (RepositoryScanner([tmp_path / name]).scan().roots[0] for name in ("a", "b"))
    assert a.model_count == b.model_count == 1
    assert a.identity != b.identity
