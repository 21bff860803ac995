"""The demo's clients: many at once, one image per request, every answer checked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.commands._demo_model import INPUT, LABEL, MODEL, PROBABILITIES, Digits
from penstock.commands._send import gather_or_cancel

if TYPE_CHECKING:
    from penstock_client import AsyncClient, InferResult

TOLERANCE = 1e-4
"""How far a probability may be from scikit-learn's."""

_CONNECTIONS = 4
_BATCHES = re.compile(r"^penstock_batches_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)


@dataclass(slots=True)
class LoadResult:
    """What the clients saw.

    Attributes:
        seconds: how long it took.
        latencies_s: of each request, from sending to the answer, unordered.
        correct: by image, whether the answer was the truth.
        disagreements: answers that are not scikit-learn's, in words.
    """

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    correct: dict[int, bool] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of the images that were recognised."""
        return sum(self.correct.values()) / len(self.correct) if self.correct else 0.0

    @property
    def throughput(self) -> float:
        """Requests per second."""
        return len(self.latencies_s) / self.seconds if self.seconds else 0.0

    def percentile_s(self, percent: float) -> float:
        """The latency that so many percent of the requests did not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Load:
    """Clients that share the images among them, over and over, for a time.

    Threading: confined to the event loop.
    """

    def __init__(
        self,
        clients: Sequence[AsyncClient],
        digits: Digits,
        on_answer: Callable[[float], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Sends nothing yet.

        Args:
            clients: connections; requests take turns on them.
            digits: images and right answers.
            on_answer: told the seconds since the start at every answer.
            clock: seconds.
        """
        self._clients = clients
        self._digits = digits
        self._on_answer = on_answer
        self._clock = clock
        self._sent = 0
        self._began = 0.0
        self.result = LoadResult()

    async def run(self, seconds: float, in_flight: int) -> LoadResult:
        """Keeps `in_flight` requests under way until the time is over and every image was seen.

        The first failure ends it all.
        """
        self._began = self._clock()
        await gather_or_cancel(
            self._work(self._clients[number % len(self._clients)], seconds)
            for number in range(in_flight)
        )
        self.result.seconds = self._clock() - self._began
        return self.result

    async def _work(self, client: AsyncClient, seconds: float) -> None:
        images = self._digits.images
        while self._sent < len(images) or self._clock() - self._began < seconds:
            index = self._sent % len(images)
            self._sent += 1
            sent_at = self._clock()
            answer = await client.infer(MODEL, {INPUT: images[index : index + 1]})
            answered_at = self._clock()
            self.result.latencies_s.append(answered_at - sent_at)
            self._check(index, answer)
            self._on_answer(answered_at - self._began)

    def _check(self, index: int, answer: InferResult) -> None:
        label = answer[LABEL].item()
        expected = self._digits.labels[index].item()
        gap = abs(answer[PROBABILITIES][0] - self._digits.probabilities[index]).max()
        if label != expected or not gap <= TOLERANCE:
            self.result.disagreements.append(
                f"image {index}: the server says {label}, scikit-learn {expected}; "
                f"probabilities differ by up to {gap:.2g}"
            )
        self.result.correct[index] = label == self._digits.truth[index].item()


async def run_load(
    url: str, digits: Digits, seconds: float, in_flight: int, on_answer: Callable[[float], None]
) -> LoadResult:
    """Puts load on a server over a few connections.

    Raises:
        penstock_client.PenstockError: a request failed; the first failure ends it all.
    """
    from penstock_client import AsyncClient, RetryPolicy

    options = (("grpc.use_local_subchannel_pool", 1),)  # a connection each, not one for all
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncClient(url, retry=RetryPolicy(max_attempts=1), channel_options=options)
            )
            for _ in range(_CONNECTIONS)
        ]
        return await Load(clients, digits, on_answer).run(seconds, in_flight)


def close_reasons(exposition: str) -> dict[str, int]:
    """Why the model's batches closed, from the server's metrics.

    Args:
        exposition: the text of /metrics.

    Returns:
        Batches by reason, most frequent first, reasons that did not occur left out.
    """
    counts: dict[str, int] = {}
    for found in _BATCHES.finditer(exposition):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', found["labels"]))
        if labels.get("model") == MODEL and float(found["count"]) > 0:
            reason = labels.get("reason", "")
            counts[reason] = counts.get(reason, 0) + int(float(found["count"]))
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
