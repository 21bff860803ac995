"""Who lives how long across the border: messages, tags, engines, versions, calls."""

import gc
import sys
import weakref
from collections import Counter
from pathlib import Path

import pytest
from tests.support.core_models import load, make_engine, request, serve, spec, take

from penstock.errors import Code


class Tag:
    """What a caller waits on; unlike most objects it can be watched as it goes."""


@pytest.mark.parametrize("kind", ["identity", "fail"])
@pytest.mark.parametrize("stream", [False, True])
def test_message_and_tag_go_with_their_completion(kind: str, stream: bool) -> None:
    engine = make_engine()
    serve(engine, kind=kind)
    tag = Tag()
    alive = weakref.ref(tag)
    message = request()
    before = sys.getrefcount(message)
    call = engine.infer(message, 0, tag, stream)
    assert sys.getrefcount(message) == before + 1
    del tag

    completions = take(engine, 1)

    assert sys.getrefcount(message) == before
    assert alive() is completions[0][0]
    del completions
    assert alive() is None
    call.cancel()  # too late, and harmless


def test_refused_message_is_freed_too() -> None:
    engine = make_engine()
    message = request("nobody")
    before = sys.getrefcount(message)
    engine.infer(message, 0, None, False)

    assert [code for _, code, _, _ in take(engine, 1)] == [Code.NOT_FOUND]
    assert sys.getrefcount(message) == before


def test_engine_dropped_with_requests_queued_and_never_flushed_frees_them(tmp_path: Path) -> None:
    engine = make_engine()
    version = serve(engine)
    tags = [Tag() for _ in range(10)]
    alive = [weakref.ref(tag) for tag in tags]
    message = request()
    before = sys.getrefcount(message)
    for tag in tags:
        engine.infer(message, 0, tag, False)
    del tags, tag, version, engine
    gc.collect()

    assert [ref() for ref in alive] == [None] * 10
    assert sys.getrefcount(message) == before


def test_engine_dropped_with_a_batch_running_waits_for_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    engine = make_engine()
    serve(engine, kind="block_until_file", file=str(gate))
    alive = []
    for _ in range(3):
        tag = Tag()
        alive.append(weakref.ref(tag))
        engine.infer(request(), 0, tag, False)
    engine.flush()
    del tag
    gate.touch()
    del engine
    gc.collect()

    assert [ref() for ref in alive] == [None] * 3


def test_version_and_call_outlive_their_engine() -> None:
    engine = make_engine()
    version = serve(engine)
    call = engine.infer(request(), 0, None, False)
    never_started = engine.create_version(load(engine), spec(version=2))
    del engine
    gc.collect()

    call.cancel()
    assert version.stats()["accepted"] == 1
    assert version.drain(1.0)
    assert never_started.version == 2


def test_every_request_is_completed_exactly_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    engine = make_engine()
    version = serve(engine, kind="block_until_file", file=str(gate))
    calls = [engine.infer(request(), 0, number, number % 2 == 0) for number in range(60)]
    done = list(engine.flush())
    for call in calls[1::3]:
        call.cancel()
    gate.touch()
    done += take(engine, 60 - len(done))

    assert Counter(tag for tag, *_ in done) == Counter(range(60))
    assert engine.take_completions() == []
    stats = version.stats()
    codes = Counter(code for _, code, _, _ in done)
    assert codes[Code.CANCELLED] == stats["cancelled"]["queued"] + stats["cancelled"]["running"]
    assert codes[Code.OK] + stats["cancelled"]["running"] == stats["success"]["count"]
    assert stats["accepted"] == 60
    assert (stats["pending"], stats["running"], engine.inflight()) == (0, 0, 0)
