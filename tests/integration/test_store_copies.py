"""A copy of a store's database, restored or cloned, has the same bytes as the original."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.buckets import Buckets, bucket
from tests.support.cli import penstock
from tests.support.stores import push

from penstock.store.failures import RefusedError
from penstock.store.pushing import Inspection, PushRequest, push_model
from penstock.store.records import Reference
from penstock.store.store import Store, open_store

pytestmark = pytest.mark.any_transport

__all__ = ["bucket"]


@pytest.fixture(params=["directory", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    database = f"sqlite:///{tmp_path}/one.db"
    if request.param == "directory":
        return f"{database}?artifacts={tmp_path}/bytes"
    server: Buckets = request.getfixturevalue("bucket")
    return server.store_url(database)


def copied(url: str, tmp_path: Path) -> str:
    """The URL of a copy of the database, which knows where the bytes are."""
    shutil.copy(tmp_path / "one.db", tmp_path / "copy.db")
    return url.replace("one.db", "copy.db")


@contextmanager
def original_and_copy(url: str, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """The copy does not know version 2."""
    with open_store(url, may_create=True) as store:
        push(store, content=b"first")
    copy_url = copied(url, tmp_path)
    with open_store(url) as store, open_store(copy_url) as copy:
        push(store, content=b"second")
        yield store, copy


def refuse(_name: str, _repository: Path) -> Inspection:
    raise RefusedError("it would not load")


@pytest.mark.parametrize("content", ["second", "third"])
def test_push_that_fails_removes_only_what_it_added(url: str, tmp_path: Path, content: str) -> None:
    (tmp_path / "model.onnx").write_text(content)
    with original_and_copy(url, tmp_path) as (store, copy):
        before = set(store.artifacts.names())
        with pytest.raises(RefusedError, match="would not load"):
            push_model(copy, PushRequest(name="m", path=tmp_path / "model.onnx"), refuse, tmp_path)
        assert set(store.artifacts.names()) == before
        assert store.verify(Reference("m", 2)).faults == ()


def test_rm_removes_only_what_its_version_had(url: str, tmp_path: Path) -> None:
    with original_and_copy(url, tmp_path) as (store, copy):
        before = set(store.artifacts.names())
        removed = copy.remove(Reference("m", 1))
        assert before - set(store.artifacts.names()) == removed.blobs
        assert store.verify(Reference("m", 2)).faults == ()


async def test_clean_leaves_what_is_younger_than_a_week_unless_all_is_asked(
    url: str, tmp_path: Path
) -> None:
    with original_and_copy(url, tmp_path) as (store, _):
        with store.artifacts.adding():
            store.artifacts.add_bytes(b"nobody's")
        end = await penstock("store", "clean", "--store", copied(url, tmp_path))
        assert (end.code, end.out) == (0, "0 blobs removed\n"), end.err
        assert store.verify(Reference("m", 2)).faults == ()
        end = await penstock("store", "clean", "--all", "--store", url)
        assert (end.code, end.out) == (0, "1 blob removed\n"), end.err
        assert store.verify(Reference("m", 2)).faults == ()
