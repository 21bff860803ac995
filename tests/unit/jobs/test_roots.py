"""Names that callers give: within the roots, or refused."""

from pathlib import Path

import pytest

from penstock.errors import InvalidArgumentError
from penstock.jobs.failures import PlanError
from penstock.jobs.roots import JobRoots
from penstock.jobs.storage import find_files, open_filesystem, reason_of, redacted


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "jobs" / "in").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.parquet").write_text("")
    (tmp_path / "jobs" / "way-out").symlink_to(tmp_path / "secret")
    (tmp_path / "jobs" / "in" / "a.parquet").symlink_to(tmp_path / "secret" / "a.parquet")
    return tmp_path / "jobs"


def test_names_within_the_roots_are_taken(root: Path) -> None:
    roots = JobRoots((str(root), "s3://bucket/prefix/"))
    assert roots.resolve("in/x.parquet", "input") == str(root / "in" / "x.parquet")
    assert roots.resolve("in/*.parquet", "input") == str(root / "in" / "*.parquet")
    assert roots.resolve(str(root / "new" / "out"), "output") == str(root / "new" / "out")
    assert roots.resolve("s3://bucket/prefix/a", "input") == "s3://bucket/prefix/a"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../secret/a.parquet",
        "in/../../secret",
        "/etc/passwd",
        "way-out/a.parquet",
        "way-out",
        "way-out/*",
        "in/a.parquet",
        "s3://bucket/prefix2/a",
        "s3://bucket/prefix/../a",
        "s3://other/a",
        "file:///etc/passwd",
        "local:///etc/passwd",
        "s3://bucket/prefix/a?endpoint_override=evil.example",
        "s3://bucket/prefix/%2e%2e/a",
        "s3://bucket/prefix/a#b",
        "s3://bucket/prefix/a::file:///etc/passwd",
        "s3://key:secret@bucket/prefix/a",
        "in/\n",
        "in/\0",
        "in\\..\\..\\secret",
    ],
)
def test_names_that_lead_out_are_refused(root: Path, name: str) -> None:
    roots = JobRoots((str(root), "s3://bucket/prefix"))
    with pytest.raises(InvalidArgumentError, match="input"):
        roots.resolve(name, "input")


def test_files_of_a_directory_that_lead_out_are_refused(root: Path) -> None:
    roots = JobRoots((str(root),))
    _, files = find_files(roots.resolve("in", "input"))
    with pytest.raises(InvalidArgumentError, match="'a.parquet' leads out of the roots of jobs"):
        roots.check_files(files, "in")


def test_output_whose_folders_are_links_is_refused(root: Path) -> None:
    roots = JobRoots((str(root),))
    (root / "out").mkdir()
    (root / "out" / "rejects").symlink_to(root)
    with pytest.raises(InvalidArgumentError, match="output 'out': 'rejects' is a link"):
        roots.check_output(str(root / "out"), "out")


def test_relative_names_are_within_the_first_root_that_is_a_uri() -> None:
    roots = JobRoots(("s3://bucket/prefix", "/data"))
    assert roots.resolve("a/b", "input") == "s3://bucket/prefix/a/b"
    with pytest.raises(InvalidArgumentError):
        roots.resolve("/etc/x", "input")


@pytest.mark.parametrize("name", ["a?region=x", "%2e%2e/other", "a#b", "a\\b", "a\x07", "a::file:"])
def test_relative_names_in_a_uri_are_names_of_objects_and_no_more(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="input"):
        JobRoots(("s3://bucket/prefix",)).resolve(name, "input")


def test_user_and_query_of_a_root_are_its_own_and_shown_to_nobody() -> None:
    roots = JobRoots(("s3://key:secret@bucket/prefix?region=x",))
    assert roots.resolve("a/b", "input") == "s3://key:secret@bucket/prefix/a/b?region=x"
    whole = roots.resolve("s3://bucket/prefix/a", "input")
    assert whole == "s3://key:secret@bucket/prefix/a?region=x"
    assert redacted(whole) == "s3://bucket/prefix/a"
    assert redacted("s3://key:se/cret@bucket/a@b") == "s3://bucket/a@b"
    with pytest.raises(PlanError) as caught:
        open_filesystem("s3://key:secret@/ no uri?token=secret")
    assert "secret" not in str(caught.value)


def test_reason_is_one_line_without_the_queries_of_urls() -> None:
    error = OSError("cannot delete 'http://host:1/c/a?sig=se%2Fcret&se=1'.\n  Why? 500 at host?x=y")
    assert reason_of(error) == "cannot delete 'http://host:1/c/a'. Why? 500 at host"


def test_root_of_the_scheme_file_is_a_local_one(root: Path) -> None:
    roots = JobRoots((f"file://{root}",))
    assert roots.resolve("in/x", "input") == str(root / "in" / "x")
    assert roots.resolve(f"file://{root}/in/x", "input") == str(root / "in" / "x")
    assert roots.is_local(roots.resolve("in", "input"))
    for name in ("way-out", f"file://{root}/way-out/a.parquet", "file:///etc/passwd"):
        with pytest.raises(InvalidArgumentError, match="not within the roots"):
            roots.resolve(name, "input")
