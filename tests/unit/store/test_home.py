"""Whose artifacts a directory has: a store's own, also when they cannot be reached."""

import shutil
from pathlib import Path

import pytest
from tests.support.stores import directory_of, push

from penstock.store.failures import RefusedError, StoreUnavailableError
from penstock.store.records import Reference
from penstock.store.store import open_store


def test_two_stores_do_not_share_a_directory(tmp_path: Path) -> None:
    first, second = (f"sqlite:///{tmp_path}/{name}.db?artifacts={tmp_path}/a" for name in "12")
    with open_store(first, may_create=True) as store:
        blobs = {*store.artifacts.names(), push(store).files[0].sha256}
    with pytest.raises(RefusedError, match="are those of another store"):
        with open_store(second, may_create=True):
            pass
    with open_store(first) as store:
        store.clean()
        assert blobs < set(store.artifacts.names())


def test_claim_that_was_killed_is_done_again(tmp_path: Path) -> None:
    with open_store(str(tmp_path), may_create=True) as store:
        owner = directory_of(store).owner
        with store.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM settings WHERE key = 'artifacts_claimed'")
    (tmp_path / "artifacts" / "store-id").unlink()
    (tmp_path / "artifacts" / f"store-id.{owner}").write_text("half")
    with open_store(str(tmp_path), may_create=True) as store:
        assert push(store).version == 1
    assert (tmp_path / "artifacts" / "store-id").read_text() == f"{owner}\n"


@pytest.mark.parametrize("is_mount_point_left", [True, False])
def test_artifacts_that_are_not_mounted_are_nobodys_fault(
    tmp_path: Path, is_mount_point_left: bool
) -> None:
    with open_store(str(tmp_path), may_create=True) as store:
        push(store)
    (tmp_path / "artifacts").rename(tmp_path / "elsewhere")
    if is_mount_point_left:
        (tmp_path / "artifacts").mkdir()
    with open_store(str(tmp_path)) as store:
        with pytest.raises(StoreUnavailableError, match="is its file system mounted"):
            store.verify(Reference("m", 1))
        with pytest.raises(StoreUnavailableError):
            store.artifacts.manifest(store.show(Reference("m", 1)).digest)
        with pytest.raises(StoreUnavailableError):
            store.clean()
        assert store.show(Reference("m", 1)).status == "READY"
    with pytest.raises(StoreUnavailableError):
        with open_store(str(tmp_path), may_create=True):
            pass
    shutil.rmtree(tmp_path / "artifacts", ignore_errors=True)
    (tmp_path / "elsewhere").rename(tmp_path / "artifacts")
    with open_store(str(tmp_path)) as store:
        assert store.verify(Reference("m", 1)).faults == ()


def test_sqlite_remembers_where_the_artifacts_are_and_may_be_moved(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/one/x.db"
    with open_store(f"{url}?artifacts={tmp_path}/one/bytes", may_create=True) as store:
        push(store)
    with open_store(url) as store:
        assert directory_of(store).root == tmp_path / "one" / "bytes"
    with pytest.raises(RefusedError, match="artifacts of the store"):
        with open_store(f"{url}?artifacts={tmp_path}/two"):
            pass
    (tmp_path / "one").rename(tmp_path / "two")
    with open_store(f"sqlite:///{tmp_path}/two/x.db") as store:
        assert store.verify(Reference("m", 1)).faults == ()
