"""The pipeline of a job: a thread reads ahead, requests are in flight, a thread writes in order.

Memory is bounded by the blocks that are open: read, and not yet written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from penstock.jobs.parts import PartWriter
from penstock.jobs.pieces import Piece
from penstock.jobs.requests import Answer, Request, Sender, requests_of

_OPEN_PIECES = 4

OnRows = Callable[[int, int], None]
"""Called with rows done and rows rejected of each piece that is written."""


@dataclass(slots=True, eq=False)
class _OpenPiece:
    piece: Piece
    answers: list[Answer]
    waiting: int
    is_answered: asyncio.Event = field(default_factory=asyncio.Event)


class Runner:
    """Runs the pieces of a job.

    Threading: confined to the event loop; reads on one thread of its own and writes on another.
    Ownership: borrows everything.
    Lifecycle: run, once.
    """

    def __init__(
        self,
        sender: Sender,
        writer: PartWriter,
        *,
        request_rows: int,
        in_flight: int,
        on_rows: OnRows = lambda rows, rejected: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Runs nothing yet.

        Args:
            sender: gets requests answered.
            writer: takes what came of it.
            request_rows: rows per request at most.
            in_flight: requests under way at a time.
            on_rows: hears of progress.
            on_stop: called when no further piece is wanted; should end one that is being read.
        """
        self._sender = sender
        self._writer = writer
        self._request_rows = request_rows
        self._in_flight = in_flight
        self._on_rows = on_rows
        self._on_stop = on_stop
        self._waiting: deque[tuple[Request, _OpenPiece]] = deque()
        self._filling = asyncio.Lock()
        self._room = asyncio.Semaphore(_OPEN_PIECES)
        self._open: asyncio.Queue[_OpenPiece | None] = asyncio.Queue()
        self._ahead: Future[Piece | None] | None = None
        self._has_ended = False

    async def run(self, pieces: Iterator[Piece]) -> None:
        """Returns when all is written and committed.

        Raises:
            JobError: why not; what is committed stays.
        """
        reading, writing = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        try:
            await self._run(pieces, reading, writing)
        finally:
            self._on_stop()
            await _to_its_end(asyncio.to_thread(_shut_down, reading, writing))

    async def _run(
        self, pieces: Iterator[Piece], reading: ThreadPoolExecutor, writing: ThreadPoolExecutor
    ) -> None:
        loop = asyncio.get_running_loop()
        works = [self._work(pieces, reading) for _ in range(self._in_flight)]
        tasks = [asyncio.ensure_future(work) for work in (*works, self._write(writing))]
        try:
            await asyncio.gather(*tasks)
            await loop.run_in_executor(writing, self._writer.finish)
        except BaseException as error:
            reason = error
            self._on_stop()
            self._sender.stop()
            for task in tasks:
                task.cancel()

            async def abandon() -> None:
                await asyncio.gather(*tasks, return_exceptions=True)
                await loop.run_in_executor(writing, self._writer.abandon, reason)

            await _to_its_end(abandon())
            raise

    async def _work(self, pieces: Iterator[Piece], reading: ThreadPoolExecutor) -> None:
        while True:
            if not self._waiting:
                await self._fill(pieces, reading)
                if not self._waiting:
                    return
            request, owner = self._waiting.popleft()
            owner.answers[request.slot] = await self._sender.answer(request)
            owner.waiting -= 1
            if owner.waiting == 0:
                owner.is_answered.set()

    async def _fill(self, pieces: Iterator[Piece], reading: ThreadPoolExecutor) -> None:
        """Takes pieces until there are requests, or no further piece."""
        async with self._filling:
            while not self._waiting and not self._has_ended:
                await self._room.acquire()
                coming = self._ahead or reading.submit(next, pieces, None)
                self._ahead = None
                piece = await asyncio.wrap_future(coming)
                if piece is None:
                    self._has_ended = True
                    self._open.put_nowait(None)
                    return
                self._ahead = reading.submit(next, pieces, None)
                self._take(piece)

    def _take(self, piece: Piece) -> None:
        requests = requests_of(piece, self._request_rows)
        owner = _OpenPiece(piece, [Answer() for _ in requests], len(requests))
        if not requests:
            owner.is_answered.set()
        self._open.put_nowait(owner)
        self._waiting.extend((request, owner) for request in requests)

    async def _write(self, writing: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while (owner := await self._open.get()) is not None:
            await owner.is_answered.wait()
            before = self._writer.rejected
            await loop.run_in_executor(writing, self._writer.add, owner.piece, owner.answers)
            self._room.release()
            self._on_rows(owner.piece.count, self._writer.rejected - before)


def _shut_down(*pools: ThreadPoolExecutor) -> None:
    for pool in pools:
        pool.shutdown()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Awaits what has to be done although the job is being cancelled, again and again maybe."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
