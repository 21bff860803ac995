"""Both clients over a mock transport, so that one test body covers blocking and asyncio.

A test is parametrised with `KINDS` and awaits `settle(client.method(...))`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock_client import (
    AsyncClient,
    AsyncMockTransport,
    Call,
    Client,
    MockTransport,
    Odds,
    RetryPolicy,
)

Answer = Callable[[Call, Any], Any]


@dataclass
class Clock:
    """Time that passes only by `sleep` and `advance`; `waits` is what was slept."""

    now_s: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def odds(self, chance: float = 1.0) -> Odds:
        return Odds(clock=lambda: self.now_s, random=lambda: chance)


@dataclass(frozen=True)
class Kind:
    """One of the two clients."""

    is_async: bool

    def client(
        self, answer: Answer, *, clock: Clock | None = None, chance: float = 1.0, **settings: Any
    ) -> Any:
        clock = clock or Clock()
        settings = {"retry": RetryPolicy(), "odds": clock.odds(chance), **settings}
        if not self.is_async:
            return Client("mock", transport=MockTransport(answer), sleep=clock.sleep, **settings)

        async def answer_async(call: Call, request: Any) -> Any:
            return answer(call, request)

        return AsyncClient(
            "mock",
            transport=AsyncMockTransport(answer_async),
            sleep=clock.sleep_async,
            **settings,
        )


KINDS = [pytest.param(Kind(False), id="sync"), pytest.param(Kind(True), id="asyncio")]


async def settle(value: Any) -> Any:
    """The value itself, awaited where it must be."""
    return await value if inspect.isawaitable(value) else value
