"""Artifacts in buckets: whole or not seen, checked by pieces, cleaned only while nobody adds."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.buckets import KINDS, Buckets, serving_buckets
from tests.support.store_world import World, serving
from tests.support.stores import PostgresqlServer, postgresql, push

from penstock.store.bucket import Bucket, open_bucket
from penstock.store.cache import ArtifactCache
from penstock.store.failures import CorruptError, RefusedError, StoreUnavailableError
from penstock.store.files import SourceFile
from penstock.store.manifest import FileEntry
from penstock.store.objects import ArtifactObjects
from penstock.store.records import Reference
from penstock.store.store import Store, open_store

pytestmark = pytest.mark.any_transport

__all__ = ["postgresql"]

PIECE = 1 << 16


@pytest.fixture(scope="module", params=KINDS)
def bucket(request: pytest.FixtureRequest) -> Iterator[Buckets]:
    with serving_buckets(request.param) as buckets:
        yield buckets


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, bucket: Buckets, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return bucket.store_url(f"sqlite:///{tmp_path}/store.db")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return bucket.store_url(server.url(server.new_database()))


@pytest.fixture
def store(bucket: Buckets, tmp_path: Path) -> Iterator[Store]:
    """On SQLite, whose blobs are cut into small pieces."""
    with open_store(bucket.store_url(f"sqlite:///{tmp_path}/s.db"), may_create=True) as opened:
        artifacts_of(opened)._piece_bytes = PIECE
        yield opened


def artifacts_of(store: Store) -> ArtifactObjects:
    assert isinstance(store.artifacts, ArtifactObjects)
    return store.artifacts


def bucket_of(store: Store) -> Bucket:
    return artifacts_of(store)._bucket


def keys(store: Store, prefix: str) -> set[str]:
    return {key for key, _ in bucket_of(store).list(prefix)}


def large(store: Store, tmp_path: Path) -> tuple[Path, FileEntry]:
    """A file of three pieces and a bit, and its entry once it was added."""
    path = tmp_path / "large.onnx"
    path.write_bytes(os.urandom(3 * PIECE + 5))
    with store.artifacts.adding():
        return path, store.artifacts.add_file(SourceFile("version/model.onnx", path))


async def test_version_in_a_bucket_is_pushed_served_and_verified(url: str, tmp_path: Path) -> None:
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0, golden=1.0)
        deployment = world.deploy("m@1")
        # What the database keeps is enough for whoever opens it after the first push.
        world.url = url.partition("?artifacts" if "?artifacts" in url else "&artifacts")[0]
        async with serving(world.config()) as asked:
            assert (await world.settled(deployment)).status == "SERVING"
            assert await asked.answer() == ("1", 1.0)
        assert opened.verify(Reference("m")).faults == ()


def test_blob_of_many_pieces_comes_back_whole(store: Store, tmp_path: Path) -> None:
    path, entry = large(store, tmp_path)
    moved: list[int] = []
    store.artifacts.copy_out(entry, tmp_path / "copy", moved.append)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert moved == [PIECE, PIECE, PIECE, 5]
    assert (tmp_path / "copy").stat().st_mode & 0o111 == 0
    store.artifacts.check(entry)


def test_download_goes_on_where_it_was_and_believes_no_byte(store: Store, tmp_path: Path) -> None:
    path, entry = large(store, tmp_path)
    content = bytearray(path.read_bytes()[: 2 * PIECE])
    content[PIECE] ^= 1  # the second piece was damaged by whatever ended the first try
    (tmp_path / "copy").write_bytes(content)
    (first,) = [key for key in keys(store, f"pieces/{entry.sha256}") if "/0-" in key]
    bucket_of(store).remove([first])  # nobody asks for it
    store.artifacts.copy_out(entry, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_upload_that_was_cut_off_is_not_seen_and_goes_on(store: Store, tmp_path: Path) -> None:
    path, entry = large(store, tmp_path)
    index = f"indexes/{entry.sha256[:2]}/{entry.sha256}"
    (last,) = [key for key in keys(store, f"pieces/{entry.sha256}") if "/3-" in key]
    bucket_of(store).remove([index, last])
    assert entry.sha256 not in set(store.artifacts.names())
    with pytest.raises(CorruptError, match="there is no blob"):
        store.artifacts.check(entry)
    with store.artifacts.adding():
        store.artifacts.add_file(SourceFile("version/model.onnx", path))
    store.artifacts.check(entry)
    bucket_of(store).remove([index])
    assert store.clean() == 0
    assert keys(store, "pieces") == set()


def test_damaged_or_missing_piece_is_put_aside_and_a_push_heals_it(
    store: Store, tmp_path: Path
) -> None:
    record = push(store, content=os.urandom(3 * PIECE))
    (entry,) = record.files
    pieces = sorted(keys(store, f"pieces/{entry.sha256}"))
    bucket_of(store).put(pieces[1], b"x" * PIECE)
    cache = ArtifactCache(tmp_path / "cache", 0)
    cache.open()
    with pytest.raises(CorruptError, match=r"piece 1 of blob \w+ is not what its name says"):
        cache.fetch(record, store.artifacts)
    verified = store.verify(Reference("m", 1))
    assert verified.status == "QUARANTINED" and "piece 1" in verified.faults[0]
    assert len(keys(store, "quarantine")) == 4  # three pieces and the index
    assert keys(store, f"pieces/{entry.sha256}") == set()


def test_nothing_is_cleaned_while_somebody_adds(url: str) -> None:
    with open_store(url, may_create=True) as store, open_store(url) as cleaner:
        with store.artifacts.adding():
            sha256 = store.artifacts.add_bytes(b"not named yet")
            assert cleaner.clean() == 0
        assert cleaner.clean() == 1
        assert sha256 not in set(store.artifacts.names())


def test_push_whose_lock_broke_is_refused_before_it_commits(
    bucket: Buckets, postgresql: PostgresqlServer
) -> None:
    import psycopg

    url = postgresql.url(postgresql.new_database())
    with open_store(bucket.store_url(url), may_create=True) as store:
        with psycopg.connect(url, autocommit=True) as other:
            with store.artifacts.adding() as confirm:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = "
                    "current_database())"
                )
                with store.database.read() as connection:
                    with pytest.raises(StoreUnavailableError, match="went away during the push"):
                        confirm(connection)


def test_cleaner_that_waits_does_not_keep_a_push_from_committing(
    bucket: Buckets, postgresql: PostgresqlServer
) -> None:
    url = bucket.store_url(postgresql.url(postgresql.new_database()))
    with open_store(url, may_create=True) as store, ThreadPoolExecutor(1) as pool:
        lock, polled = artifacts_of(store)._lock, threading.Event()

        def wait() -> bool:
            with lock.exclusive(waits=True) as is_had:
                return is_had

        class Polls(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                polled.set()
                return super().wait(timeout)

        with pytest.MonkeyPatch.context() as patch:
            with store.artifacts.adding() as confirm:
                patch.setattr("penstock.store.adding_lock.threading.Event", Polls)
                waiting = pool.submit(wait)
                assert polled.wait(60)
                with store.database.write() as connection:
                    connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
                    confirm(connection)
            assert waiting.result(60)
            patch.setattr("penstock.store.adding_lock._PATIENCE_S", 0.0)
            with store.artifacts.adding():
                with pytest.raises(StoreUnavailableError, match="somebody has added"):
                    wait()


def test_bucket_of_another_store_is_refused(bucket: Buckets, tmp_path: Path) -> None:
    first, second = (bucket.store_url(f"sqlite:///{tmp_path}/{name}.db") for name in "12")
    second = second.partition("?")[0] + "?" + first.partition("?")[2]
    with open_store(first, may_create=True):
        pass
    with pytest.raises(RefusedError, match="are those of another store"):
        with open_store(second, may_create=True):
            pass


@pytest.mark.parametrize("what", ["bucket", "server"])
def test_bucket_that_cannot_be_reached_is_told_without_secrets(
    tmp_path: Path, bucket: Buckets, what: str
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        if what == "bucket":
            place = bucket.place("none-such")
        else:
            place = Buckets(bucket.kind, f"127.0.0.1:{taken.getsockname()[1]}").place()
        url = f"sqlite:///{tmp_path}/s.db?artifacts={quote(place, safe='')}"
        shown = place.partition("?")[0]
        with pytest.raises(StoreUnavailableError, match=f"'{shown}'") as failure:
            with open_store(url, may_create=True):
                pass
    assert bucket.secret not in str(failure.value)


PUSH = """
import os, signal, sys
from tests.support.stores import push
from penstock.store.bucket import Bucket
from penstock.store.store import open_store

url, seed, left = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
put = Bucket.put

def counted(self, key, content, **more):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, key, content, **more)

Bucket.put = counted
with open_store(url, may_create=True) as store:
    store.artifacts._piece_bytes = 1000
    push(store, content=bytes([seed]) * 5000)
"""


def test_push_that_is_killed_at_any_upload_leaves_nothing_that_clean_leaves(
    bucket: Buckets, tmp_path: Path
) -> None:
    url = bucket.store_url(f"sqlite:///{tmp_path}/s.db")
    with open_store(url, may_create=True) as store:
        before = {key for folder in ("blobs", "pieces") for key in keys(store, folder)}
        for left in (2, 5, 7, 8):
            done = subprocess.run([sys.executable, "-c", PUSH, url, str(left), str(left)])
            # 5 pieces, the index and the manifest: the eighth upload does not come
            assert done.returncode == (0 if left == 8 else -signal.SIGKILL)
            assert len(store.models()) == (left == 8)
        (version,) = store.versions("m")
        assert store.verify(Reference("m", version.version)).faults == ()
        store.clean()
        wanted = hashlib.sha256(bytes([8]) * 5000).hexdigest()
        assert set(store.artifacts.names()) == {wanted, version.digest.removeprefix("sha256:")}
        assert {key.split("/")[1] for key in keys(store, "pieces")} == {wanted}
        assert before == set()


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("s3://key:secret@bucket/x", "credentials belong in the environment"),
        ("s3://bucket/x%3Faws_secret_access_key=secret", "credentials belong in the environment"),
        ("ftp://bucket/x", "expected a directory, s3://BUCKET/PREFIX"),
        ("s3:///x", "expected a directory, s3://BUCKET/PREFIX"),
    ],
)
def test_url_that_no_database_should_keep_is_refused(
    tmp_path: Path, place: str, fault: str
) -> None:
    with pytest.raises(RefusedError, match=fault) as failure:
        Store(f"sqlite:///{tmp_path}/s.db?artifacts={place}", actor="tester")
    assert "secret" not in str(failure.value).replace("aws_secret", "")


def test_missing_object_is_none_and_removing_it_no_fault(bucket: Buckets) -> None:
    opened = open_bucket(bucket.place())
    assert opened.get("none", 10) is None
    opened.remove(["none", "nor-this"])
    opened.move("none", "there")
    assert opened.put("one", b"1", only_new=True) and not opened.put("one", b"2", only_new=True)
    assert opened.get("one", 10) == b"1"
