"""Threads that call LoadGen: kept for the next call, as targets' are."""

import threading

import pytest
from mlperf.lasting_thread import on_lasting_thread


def thread_of(calls: int = 1) -> list[int]:
    """The native ids of the threads that so many calls have, one after the other."""
    found: list[int] = []
    for _ in range(calls):
        on_lasting_thread(lambda: found.append(threading.get_native_id())).join()
    return found


def test_thread_is_kept_for_the_next_call() -> None:
    assert len(set(thread_of(3))) == 1


def test_calls_at_the_same_time_have_threads_of_their_own() -> None:
    may_end = threading.Event()
    first = on_lasting_thread(may_end.wait)
    try:
        (other,) = thread_of()
        assert other != threading.get_native_id()
    finally:
        may_end.set()
        first.join()


def test_call_that_fails_is_told_and_its_thread_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        threading, "excepthook", lambda failure: told.append(str(failure.exc_value))
    )
    before = thread_of()

    def fail() -> None:
        raise ValueError("broken")

    on_lasting_thread(fail).join()
    assert told == ["broken"]
    assert thread_of() == before
