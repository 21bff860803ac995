"""Processes that die by SIGKILL in a push or a deployment: the store is consistent afterwards."""

from pathlib import Path

import pytest
from tests.support.buckets import Buckets, bucket
from tests.support.killed_store import count_calls, push_and_deploy, run_killed
from tests.support.stores import directory_of, postgresql, store_url

from penstock.store.cache import ArtifactCache
from penstock.store.directory import ArtifactDirectory
from penstock.store.records import Reference
from penstock.store.store import Store, open_store

pytestmark = pytest.mark.any_transport

# 200 processes, one after the other, of which each flushes what it writes: a minute or two alone.
patient = pytest.mark.timeout(3600)

__all__ = ["bucket", "postgresql", "store_url"]


def check(store: Store, cache_root: Path, known: int = 0) -> int:
    """Everything that can be seen is whole, and points to what is there; the latest version.

    Args:
        store: to look at.
        cache_root: of the server.
        known: versions up to it were looked at before, and are only seen to be there still.
    """
    versions = store.versions("m")
    numbers = {each.version for each in versions}
    assert numbers >= set(range(1, known + 1))
    for number in sorted(each for each in numbers if each > known):
        check_version(store, number)
    generation, desired = store.desired("prod")
    assert {each.target.version for each in desired} <= numbers
    requested = [e for e in store.log(environment="prod", limit=9999)]
    assert generation == sum(e.kind == "deploy requested" for e in requested)
    assert sum(e.kind == "serving" for e in requested) <= generation
    cached = sorted((cache_root / "models").iterdir()) if cache_root.exists() else []
    for entry in cached:
        assert len([path for path in entry.rglob("*") if path.is_file()]) == 1
    assert numbers == set(range(1, max(numbers) + 1))  # of a push that died none is used up
    return max(numbers)


def check_version(store: Store, number: int) -> None:
    record = store.show(Reference("m", number))
    assert store.verify(Reference("m", number)).faults == ()
    assert record.owner == "ada" and set(record.tags) == {"seed"}
    assert len(record.links) == 4 and len(record.metrics) == 1 and len(record.files) == 1
    pushed = [e for e in store.log(model="m", version=number) if e.kind == "pushed"]
    assert len(pushed) == 1


def play(url: str, place: Path, deaths: int) -> None:
    cache_root = place / "cache"
    calls = count_calls(url, cache_root, place / "calls")
    with open_store(url) as store:
        latest = 0
        for seed in range(1, deaths + 1):
            run_killed(url, cache_root, seed, calls)
            latest = check(store, cache_root, latest)
            assert 1 <= latest <= seed + 1
        push_and_deploy(url, cache_root, deaths + 1)  # as if nothing had happened
        assert check(store, cache_root) == latest + 1  # now all of them once more
        if isinstance(store.artifacts, ArtifactDirectory):
            assert list((directory_of(store).root / "tmp").iterdir()) == []
        store.clean()
        check_nothing_is_left(store, cache_root)
        (serving,) = store.desired("prod")[1]
        assert serving.target.status == "SERVING"
        assert serving.target.version == latest + 1


def check_nothing_is_left(store: Store, cache_root: Path) -> None:
    """Of those who died: after the store and the cache were cleaned."""
    records = [store.show(Reference("m", each.version)) for each in store.versions("m")]
    wanted = {entry.sha256 for record in records for entry in record.files}
    wanted |= {record.digest.removeprefix("sha256:") for record in records}
    assert set(store.artifacts.names()) == wanted
    ArtifactCache(cache_root, 0).open()
    assert list((cache_root / "tmp").iterdir()) == []


def test_store_is_consistent_after_a_dozen_deaths(store_url: str, tmp_path: Path) -> None:
    play(store_url, tmp_path, 12)


@patient
@pytest.mark.slow
def test_store_is_consistent_after_200_deaths(store_url: str, tmp_path: Path) -> None:
    play(store_url, tmp_path, 200)


def test_store_in_a_bucket_is_consistent_after_a_few_deaths(
    bucket: Buckets, tmp_path: Path
) -> None:
    play(bucket.store_url(f"sqlite:///{tmp_path}/store.db"), tmp_path, 6)


@patient
@pytest.mark.slow
def test_store_in_a_bucket_is_consistent_after_200_deaths(bucket: Buckets, tmp_path: Path) -> None:
    play(bucket.store_url(f"sqlite:///{tmp_path}/store.db"), tmp_path, 200)


def test_first_push_that_dies_leaves_a_store_that_works(tmp_path: Path) -> None:
    calls = count_calls(str(tmp_path / "0"), tmp_path / "c0", tmp_path / "calls")
    for seed in range(1, 7):
        url = str(tmp_path / str(seed))
        run_killed(url, tmp_path / f"c{seed}", seed, calls // 4)
        push_and_deploy(url, tmp_path / f"c{seed}", 99)
        with open_store(url) as store:
            assert check(store, tmp_path / f"c{seed}") in (1, 2)
