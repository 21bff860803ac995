"""Threads of an owner: what is under way is waited for at the end, whatever became of its task."""

import asyncio
import threading

import pytest

from penstock.threads import Threads, end_tasks


async def test_close_waits_for_what_a_cancelled_task_left_under_way() -> None:
    threads = Threads(1, "t")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(60)

    task = asyncio.create_task(threads.run(work))
    assert await asyncio.to_thread(begun.wait, 60)
    await end_tasks(task, None)
    assert task.cancelled()
    assert not await threads.close(0.0)
    go_on.set()
    assert await threads.close(60.0)


async def test_result_and_failure_are_the_functions() -> None:
    threads = Threads(2, "t")
    assert await threads.run(divmod, 7, 3) == (2, 1)
    with pytest.raises(ValueError, match="invalid literal"):
        await threads.run(int, "x")
    assert await threads.close(60.0)
