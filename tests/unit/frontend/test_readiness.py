"""Readiness: what probes are answered, and who hears of changes."""

import asyncio

from penstock.frontend.readiness import Readiness


def test_life_from_loading_to_closing() -> None:
    readiness = Readiness(lambda: True)
    assert (readiness.is_ready, readiness.has_started, readiness.is_closing) == (False,) * 3
    readiness.start()
    assert (readiness.is_ready, readiness.has_started, readiness.is_closing) == (True, True, False)
    readiness.withdraw()
    assert (readiness.is_ready, readiness.has_started, readiness.is_closing) == (False, True, False)
    readiness.close()
    assert (readiness.is_ready, readiness.has_started, readiness.is_closing) == (False, True, True)


def test_ready_only_while_the_models_are() -> None:
    models = {"ready": False}
    readiness = Readiness(lambda: models["ready"])
    readiness.start()
    assert not readiness.is_ready
    models["ready"] = True
    assert readiness.is_ready


async def test_every_change_wakes_everybody_who_waits() -> None:
    readiness = Readiness(lambda: True)
    for change in (readiness.start, readiness.announce, readiness.withdraw, readiness.close):
        waiters = [asyncio.create_task(readiness.next_change().wait()) for _ in range(2)]
        change()
        await asyncio.gather(*waiters)


async def test_change_between_taking_the_event_and_waiting_is_not_missed() -> None:
    readiness = Readiness(lambda: True)
    change = readiness.next_change()
    readiness.start()
    await change.wait()
    assert not readiness.next_change().is_set()
