"""What is read from a model's directory, and that nothing leads out of the repository."""

import os
from pathlib import Path

import pytest
from tests.support.fake_engine import add_model

from penstock.errors import ConfigError, InternalError, NotFoundError
from penstock.repository.layout import (
    CONFIG_FILENAME,
    find_model,
    list_models,
    model_file,
    read_config_file,
    read_text,
)


def test_models_are_the_visible_directories(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "b").mkdir(parents=True)
    (tmp_path / "two" / "a").mkdir()
    (tmp_path / "two" / ".hidden").mkdir()
    (tmp_path / "two" / "file").touch()
    os.mkdir(os.fsencode(tmp_path / "two") + b"/not-utf8-\xff")
    assert list_models([tmp_path / "one", tmp_path / "two"]) == ["a", "b"]


def test_versions_are_the_numeric_directories(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m", versions=(2, 10))
    for name in ("0", "03", "tmp"):
        (path / name).mkdir()
    (path / "7").touch()
    assert find_model([tmp_path], "m").versions == (2, 10)


@pytest.mark.parametrize("name", ["m", "", ".", "..", "a/b", "a\0b", "m" * 256, "\udcff"])
def test_unknown_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(InternalError, match="^failed to load '.*', failed to poll from model repo"):
        find_model([tmp_path], name)


def test_configuration_is_optional(tmp_path: Path) -> None:
    add_model(tmp_path, "m")
    assert read_config_file(find_model([tmp_path], "m")) is None


def test_configuration_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m")
    (path / CONFIG_FILENAME).write_bytes(b'name: "m"\n# \xff\n')
    with pytest.raises(ConfigError, match="not UTF-8 in line 2"):
        read_config_file(find_model([tmp_path], "m"))


def test_configuration_that_is_a_directory(tmp_path: Path) -> None:
    (add_model(tmp_path, "m") / CONFIG_FILENAME).mkdir()
    with pytest.raises(ConfigError, match="cannot read 'config.pbtxt': Is a directory"):
        read_config_file(find_model([tmp_path], "m"))


def test_configuration_that_is_a_dangling_link(tmp_path: Path) -> None:
    (add_model(tmp_path, "m") / CONFIG_FILENAME).symlink_to("gone")
    with pytest.raises(ConfigError, match="cannot read 'config.pbtxt': No such file"):
        read_config_file(find_model([tmp_path], "m"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x", "a/../../x", "a\0"])
def test_names_that_climb_are_refused(tmp_path: Path, name: str) -> None:
    add_model(tmp_path, "m")
    with pytest.raises(ConfigError, match="^field: .* leads out of the model's directory$"):
        read_text(find_model([tmp_path], "m"), name, "field")


def test_link_out_of_the_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    path = add_model(tmp_path / "repository", "m", versions=(1,))
    (path / "labels.txt").symlink_to(tmp_path / "secret")
    os.unlink(path / "1" / "model.onnx")
    (path / "1" / "model.onnx").symlink_to(tmp_path / "secret")
    model = find_model([tmp_path / "repository"], "m")
    with pytest.raises(ConfigError, match="'labels.txt' is a link that leads out of the repos"):
        read_text(model, "labels.txt", "field")
    with pytest.raises(ConfigError, match="'model.onnx' is a link that leads out of the repos"):
        model_file(model, 1, "model.onnx")


def test_loop_of_links_is_refused(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m")
    (path / "a").symlink_to("b")
    (path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match="'a'"):
        read_text(find_model([tmp_path], "m"), "a", "field")


def test_link_within_a_linked_repository_is_followed(tmp_path: Path) -> None:
    path = add_model(tmp_path / "real", "m")
    (tmp_path / "real" / "shared.txt").write_text("cat\n")
    (path / "labels.txt").symlink_to("../shared.txt")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    model = find_model([tmp_path / "link"], "m")
    assert read_text(model, "labels.txt", "field") == "cat\n"


def test_model_file(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m", versions=(1, 2))
    os.unlink(path / "2" / "model.onnx")
    (path / "2" / "model.onnx").mkdir()
    (path / "2" / "model.onnx" / "model.onnx").touch()
    model = find_model([tmp_path], "m")
    assert model_file(model, 1, "model.onnx") == path / "1" / "model.onnx"
    assert model_file(model, 2, "model.onnx") == path / "2" / "model.onnx" / "model.onnx"
    assert model_file(model, 1, "") == path / "1"
    with pytest.raises(NotFoundError, match="version 1 has no file 'other.onnx'"):
        model_file(model, 1, "other.onnx")
