import asyncio

from penstock.repository.availability import AvailabilityWatch


async def test_change_is_announced_once_and_nothing_after_the_stop() -> None:
    away: set[tuple[str, int]] = set()
    looks: asyncio.Queue[frozenset[tuple[str, int]]] = asyncio.Queue()
    announced: list[frozenset[tuple[str, int]]] = []

    def unavailable() -> frozenset[tuple[str, int]]:
        looks.put_nowait(frozenset(away))
        return frozenset(away)

    watch = AvailabilityWatch(unavailable, lambda: announced.append(frozenset(away)), 0.001)
    watch.start()
    for change in ({("m", 1)}, set()):
        away.clear()
        away.update(change)
        while len(announced) < (1 if change else 2):
            await looks.get()
        await looks.get()
    watch.stop()
    assert announced == [frozenset({("m", 1)}), frozenset()]
