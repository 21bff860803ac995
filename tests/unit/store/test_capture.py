"""What is known of a version without asking: code, and what an ONNX file says of itself."""

import subprocess
from pathlib import Path

import pytest
from tests.support.models.onnx_files import add_constant

from penstock.store.capture import code_of, scrubbed
from penstock.store.onnx_facts import onnx_facts


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    git(directory, "init", "-q", "-b", "trunk")
    (directory / "train.py").write_text("1")
    git(directory, "add", "train.py")
    git(directory, "commit", "-q", "-m", "x")
    git(directory, "remote", "add", "origin", "https://ada:secret@example.org/repo.git")
    return directory


def test_code_is_commit_branch_and_a_remote_without_its_secrets(repository: Path) -> None:
    (repository / "model.onnx").write_text("not tracked")
    code = code_of(repository / "model.onnx")
    assert code is not None
    assert code.revision == git(repository, "rev-parse", "HEAD")
    assert code.uri == code.name == "https://example.org/repo.git"
    assert code.details == {"branch": "trunk", "dirty": False, "untracked": 0}


def test_change_of_a_tracked_file_is_told(repository: Path) -> None:
    (repository / "train.py").write_text("2")
    code = code_of(repository)
    assert code is not None and code.details["dirty"] is True


def test_file_that_git_does_not_track_is_told_and_one_that_is_ignored_or_pushed_is_not(
    repository: Path, tmp_path: Path
) -> None:
    (repository / ".git" / "info" / "exclude").write_text("*.log\n")
    (repository / "out").mkdir()
    for name in ("out/model.onnx", "out/model.log", "run.log"):
        (repository / name).write_text("1")
    for pushed in (repository / "out", repository / "out" / "model.onnx", repository):
        code = code_of(pushed)
        assert code is not None and (code.details["dirty"], code.details["untracked"]) == (False, 0)
    (repository / "new module.py").write_text("1")
    (repository / "lib").mkdir()
    (repository / "lib" / "a.py").write_text("1")
    code = code_of(repository / "out")
    assert code is not None and (code.details["dirty"], code.details["untracked"]) == (True, 2)
    outside = tmp_path / "model.onnx"
    outside.write_text("1")
    code = code_of(outside, repository)
    assert code is not None and code.details["untracked"] == 3


def test_filters_of_the_repository_are_not_run(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "filter.evil.clean", f"touch {tmp_path}/run; cat")
    (repository / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    (repository / "train.py").write_text("2")
    code = code_of(repository)
    assert code is not None and code.details["dirty"] is True
    assert not (tmp_path / "run").exists()


def test_first_place_with_a_commit_wins(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    code = code_of(outside, repository)
    assert code is not None and code.details["branch"] == "trunk"
    assert code_of(outside) is None


def test_onnx_file_tells_producer_opsets_and_metadata(tmp_path: Path) -> None:
    model = add_constant(1.0)
    model.producer_name = "trainer"
    model.producer_version = "1.2"
    entry = model.metadata_props.add()
    entry.key, entry.value = "dataset", "digits"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    facts = onnx_facts(path)
    assert facts["producer"] == "trainer" and facts["producer_version"] == "1.2"
    assert facts["opsets"]["ai.onnx"] == 17
    assert facts["metadata"] == {"dataset": "digits"}


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x7f", b"\x0b"])
def test_file_that_is_no_onnx_file_has_no_facts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert onnx_facts(path) == {}


def test_users_and_passwords_are_taken_out_of_texts() -> None:
    assert scrubbed("see https://u:p/w@h/x?token=secret&v=1#k") == "see https://h/x?token=***&v=1#k"
    assert scrubbed("pkg @ https://h:80/p@v2#sha256=0") == "pkg @ https://h:80/p@v2#sha256=0"
    assert scrubbed("from s3://k:s@lake/x?v=1 and a@b") == "from s3://lake/x?v=1 and a@b"
