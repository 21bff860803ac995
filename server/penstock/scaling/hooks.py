"""Who is told of decisions, each by itself: one that is slow, or fails, holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from penstock.errors import StartupError
from penstock.scaling.signals import ModelSignals

__all__ = ["GROUP", "Change", "Hook", "HookError", "HookRunner", "plugin_hooks"]

GROUP = "penstock.scaling"
"""Entry points of this group may be named by --plugin."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MAX_ATTEMPTS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that differs from the one before.

    Attributes:
        model: its name.
        previous: replicas decided before; None = this is the first decision.
        replicas: that there should be.
        is_active: the model has requests, or had some lately.
        reason: in words.
        signals: what it was decided on.
    """

    model: str
    previous: int | None
    replicas: int
    is_active: bool
    reason: str
    signals: ModelSignals


Hook = Callable[[Change], Awaitable[None]]


class HookError(Exception):
    """It could not be told; the text says why. Worth another attempt unless `is_final`."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class HookRunner:
    """Tells one hook of the latest change of each model, in turn, again if that fails.

    Threading: confined to the event loop.
    Lifecycle: start -> tell -> stop.
    """

    def __init__(self, name: str, hook: Hook, *, first_pause_s: float = _FIRST_PAUSE_S) -> None:
        self._name = name
        self._hook = hook
        self._first_pause_s = first_pause_s
        self._latest: dict[str, tuple[Change, int]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to tell."""
        self._task = asyncio.create_task(self._run())

    def tell(self, change: Change) -> None:
        """Queues a change; one of the same model that still waits is never told."""
        self._latest[change.model] = change, 0
        self._wake.set()

    async def stop(self) -> None:
        """Breaks off what is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            while self._latest:
                model = next(iter(self._latest))
                change, attempts = self._latest.pop(model)
                error = await self._attempt(change)
                if error is not None and self._keep(change, attempts + 1, error):
                    await _pause(self._pause_s(attempts))
            self._wake.clear()

    async def _attempt(self, change: Change) -> HookError | None:
        try:
            await self._hook(change)
        except HookError as error:
            return error
        except Exception as error:
            _log.exception("hook %s failed", self._name)
            return HookError(type(error).__name__)
        return None

    def _keep(self, change: Change, attempts: int, error: HookError) -> bool:
        """Queues a change that failed once more, unless there is a newer one; whether to pause."""
        is_last = error.is_final or attempts >= _MAX_ATTEMPTS
        end = "; it is not told again" if is_last else ""
        _log.warning("hook %s was not told of %s: %s%s", self._name, change.model, error, end)
        if not is_last:
            self._latest.setdefault(change.model, (change, attempts))
        return not error.is_final

    def _pause_s(self, attempts: int) -> float:
        return float(min(_LONGEST_PAUSE_S, self._first_pause_s * 2**attempts))


def plugin_hooks(names: Iterable[str]) -> list[tuple[str, Hook]]:
    """The entry points of these names, loaded.

    One is called with a `Change`. An async function runs on the event loop, any other in a thread
    of its own, which ends with the process: one that hangs keeps nobody from ending.

    Raises:
        StartupError: there is none of a name, or it cannot be imported.
    """
    known = {each.name: each for each in entry_points(group=GROUP)}
    return [(name, _plugin(name, known)) for name in names]


def _plugin(name: str, known: dict[str, Any]) -> Hook:
    if name not in known:
        there = ", ".join(sorted(known)) or "there is none"
        raise StartupError(f"no entry point '{name}' of {GROUP} is installed ({there})")
    try:
        called = known[name].load()
    except Exception as error:
        raise StartupError(f"plug-in {name} cannot be imported: {error!r}") from error
    if not callable(called):
        raise StartupError(f"plug-in {name} cannot be called: {known[name].value}")

    async def tell(change: Change) -> None:
        answer = (
            called(change)
            if inspect.iscoroutinefunction(called)
            else await _on_daemon(called, change)
        )
        if inspect.isawaitable(answer):
            await answer

    return tell


async def _on_daemon(called: Callable[[Change], Any], change: Change) -> Any:
    """What it returns or raises; called on a thread that nobody waits for at the end."""
    future: Future[Any] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(called(change))
        except Exception as error:
            future.set_exception(error)
        except BaseException as error:  # SystemExit, which would end the event loop
            future.set_exception(RuntimeError(f"it raised {error!r}"))

    threading.Thread(target=run, name="plugin", daemon=True).start()
    return await asyncio.wrap_future(future)


async def _pause(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
