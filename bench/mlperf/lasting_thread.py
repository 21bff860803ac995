"""Threads that call LoadGen: they are kept for the next call, and never end.

Its logger keeps pointers to what a thread logs with (Logger::threads_to_swap_deferred_), and may
follow them after a thread has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from sys import exc_info
from typing import ClassVar


class LastingCall:
    """A call on such a thread."""

    def __init__(self) -> None:
        self._is_over = threading.Event()

    def end(self) -> None:
        """The thread is free again."""
        self._is_over.set()

    def join(self) -> None:
        """Blocking: until the call has returned."""
        self._is_over.wait()


class _Worker:
    """One thread."""

    _idle: ClassVar[list[_Worker]] = []

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], object], LastingCall]] = SimpleQueue()
        threading.Thread(target=self._serve, name="loadgen", daemon=True).start()

    @classmethod
    def begin(cls, call: Callable[[], object], begun: LastingCall) -> None:
        try:
            worker = cls._idle.pop()
        except IndexError:
            worker = cls()
        worker._calls.put((call, begun))

    def _serve(self) -> None:
        while True:
            self._run(*self._calls.get())

    def _run(self, call: Callable[[], object], begun: LastingCall) -> None:
        try:
            call()
        except BaseException:  # as where a thread ends by it
            told = (*exc_info(), threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(told))
        finally:
            self._idle.append(self)
            begun.end()


def on_lasting_thread(call: Callable[[], object]) -> LastingCall:
    """Begins a call on a thread that has nothing to do; on a new one where there is none."""
    begun = LastingCall()
    _Worker.begin(call, begun)
    return begun
