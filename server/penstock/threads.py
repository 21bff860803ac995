"""Threads: what blocks, off the event loop, and waited for at the end; tasks and events, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

__all__ = ["Threads", "end_tasks", "is_set_within"]

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A few threads for the work of one owner.

    Threading: confined to the event loop, but for `submit`. Ownership: its threads.
    Lifecycle: constructed -> (run | submit)* -> close.
    """

    def __init__(self, count: int, name: str) -> None:
        """Starts none yet; `name` is what they are called."""
        self._pool = ThreadPoolExecutor(count, name)
        self._under_way: set[Future[Any]] = set()  # outlive a task that is cancelled

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it on a thread."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `run`, for somebody who does not wait."""
        future = self._pool.submit(function, *args, **kwargs)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    async def close(self, timeout_s: float) -> bool:
        """Begins nothing more; whether what was under way ended in time."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        ended = await asyncio.to_thread(wait, tuple(self._under_way), timeout_s)
        return not ended.not_done


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks, and waits until they have ended, however they do."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event, and says whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
