"""Engines on disk: what nobody uses goes when there are too many, and nothing else does."""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.codec import ModelConfig
from penstock.engines import EngineCache, EngineCacheSettings
from penstock.engines.places import EngineInUse, EnginePlaces


def name_of(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()


def use(places: EnginePlaces, what: str, size_bytes: int = 100) -> EngineInUse:
    engine = places.use(name_of(what), "model.plan")
    engine.path.write_bytes(b"p" * size_bytes)
    return engine


def keep(places: EnginePlaces, what: str) -> Path:
    """An engine that nobody uses: for longest that whose name is first."""
    engine = use(places, what)
    engine.let_go()
    os.utime(engine.path.parent, ns=(0, ord(what) * 1_000_000_000))
    return engine.path.parent


def left(directory: Path) -> str:
    return "".join(each for each in "abcd" if (directory / name_of(each)).exists())


def test_engines_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    places = EnginePlaces(tmp_path, 250)
    assert places.stats() is None
    for each in "bacd":
        keep(places, each)
    places.use(name_of("a"), "model.plan").let_go()  # used again
    places.prune()
    assert left(tmp_path) == "ad"
    assert places.stats() == {"bytes": 200, "removed": 2}


def test_engine_was_used_until_it_is_let_go(tmp_path: Path) -> None:
    places = EnginePlaces(tmp_path, 250)
    serving = use(places, "a")
    for each in "abcd":  # "a" was loaded first
        keep(places, each)
    serving.let_go()
    places.prune()
    assert left(tmp_path) == "ad"


def test_engine_that_cannot_be_removed_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = EnginePlaces(tmp_path, 250)
    kept = {each: keep(places, each) for each in "abcd"}
    rename = os.rename

    def refuse_the_first(source: Path, target: Path) -> None:
        if source == kept["a"]:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target)

    monkeypatch.setattr("penstock.engines.places.os.rename", refuse_the_first)
    places.prune()
    assert left(tmp_path) == "ad"
    assert places.stats() == {"bytes": 200, "removed": 2}
    keep(places, "b")
    places.prune()
    assert left(tmp_path) == "ad"
    told = "an engine cannot be removed from the cache: Permission denied"
    assert caplog.messages.count(told) == 1


def test_engine_that_another_server_removed_is_not_counted_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = EnginePlaces(tmp_path, 50)
    for each in "ab":
        keep(places, each)

    def size_of(place: Path) -> int:
        if place.name == name_of("a"):
            shutil.rmtree(place)
        return 100

    monkeypatch.setattr("penstock.engines.places.size_of", size_of)
    places.prune()
    assert left(tmp_path) == ""
    assert places.stats() == {"bytes": 0, "removed": 1}


def test_place_of_an_engine_that_was_not_built_goes_if_it_is_empty_and_unused(
    tmp_path: Path,
) -> None:
    places = EnginePlaces(tmp_path, 50)
    first, second = (places.use(name_of("a"), "model.plan") for _ in range(2))
    places.discard(first)
    assert left(tmp_path) == "a", "it is built by another"
    places.discard(second)
    places.discard(use(places, "b"))
    assert left(tmp_path) == "b", "there was an engine before"
    assert places.stats() is None, "nothing is counted"


def test_without_a_bound_nothing_goes(tmp_path: Path) -> None:
    places = EnginePlaces(tmp_path, 0)
    for each in "abcd":
        keep(places, each)
    places.prune()
    assert left(tmp_path) == "abcd"
    assert places.stats() == {"bytes": 400, "removed": 0}


def test_engine_in_use_stays_over_the_bound_until_it_is_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, others = EnginePlaces(tmp_path, 50), EnginePlaces(tmp_path, 50)
    engine = use(others, "a")
    mine.prune()
    assert left(tmp_path) == "a"
    assert "not to be removed take 100 bytes of the cache, more than the 50" in caplog.text
    del engine
    mine.prune()
    assert left(tmp_path) == ""


def test_engine_that_is_being_built_stays(tmp_path: Path) -> None:
    places = EnginePlaces(tmp_path, 50)
    use(places, "a")
    builder = os.open(tmp_path / name_of("a"), os.O_RDONLY)
    fcntl.flock(builder, fcntl.LOCK_EX)  # by a child whose server let go of it
    places.prune()
    assert left(tmp_path) == "a"
    os.close(builder)
    places.prune()
    assert left(tmp_path) == ""


def test_what_is_no_engine_stays_and_half_a_removal_is_completed(tmp_path: Path) -> None:
    places = EnginePlaces(tmp_path, 1)
    (tmp_path / "timings").write_bytes(b"t" * 100)
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / ".removed-1").mkdir()
    (tmp_path / ".removed-1" / "model.plan").write_bytes(b"p")
    places.prune()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["onnxruntime", "timings"]
    assert places.stats() == {"bytes": 0, "removed": 0}


def test_engine_is_used_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    places = EnginePlaces(tmp_path, 1)
    use(places, "a")
    with monkeypatch.context() as patch:
        patch.setattr("penstock.engines.places.os.open", read_only)
        assert places.use(name_of("a"), "model.plan").path.exists()
        places.prune()
    assert left(tmp_path) == "a"


def test_cache_that_cannot_be_looked_through_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    EnginePlaces(tmp_path / "nothing", 1).prune()
    assert "cannot be looked through: No such file or directory" in caplog.text


def test_no_engine_goes_under_those_who_use_it(tmp_path: Path) -> None:
    def serve(number: int) -> int:
        places = EnginePlaces(tmp_path, 150)  # as servers of their own have them
        for turn in range(100):
            engine = use(places, "abcd"[(number + turn) % 4])
            places.prune()
            assert engine.path.exists()
            del engine
        stats = places.stats()
        assert stats is not None
        return stats["removed"]

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(serve, range(4))) > 0
    EnginePlaces(tmp_path, 150).prune()
    assert len(left(tmp_path)) == 1


def test_loads_keep_the_bound_and_what_serves(tmp_path: Path) -> None:
    program = (
        "import json, os, pathlib, sys; "
        "pathlib.Path(json.load(sys.stdin)['output']).write_bytes(b'p' * 100); "
        "os.write(int(sys.argv[1]), b'{}')"
    )
    command = (sys.executable, "-c", program)
    cache = EngineCache(EngineCacheSettings(tmp_path / "cache", command=command, max_bytes=150))
    assert cache.stats() is None
    serving = cache.plan_of(tmp_path / "a.onnx", "a", ModelConfig())
    other = cache.plan_of(tmp_path / "b.onnx", "b", ModelConfig()).path
    assert (serving.path.exists(), other.exists()) == (True, True), "both are in use"
    third = cache.plan_of(tmp_path / "c.onnx", "c", ModelConfig())
    assert (serving.path.exists(), other.exists(), third.path.exists()) == (True, False, True)
    assert cache.stats() == {"bytes": 200, "removed": 1}
