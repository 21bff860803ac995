"""The pipeline of a job: a thread reads ahead, requests are in flight, a thread writes in order.

Memory is bounded by the blocks that are open: read, and not yet written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

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
    ) -> None:
        """Runs nothing yet.

        Args:
            sender: gets requests answered.
            writer: takes what came of it.
            request_rows: rows per request at most.
            in_flight: requests under way at a time.
            on_rows: hears of progress.
        """
        self._sender = sender
        self._writer = writer
        self._request_rows = request_rows
        self._in_flight = in_flight
        self._on_rows = on_rows
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
        with (
            ThreadPoolExecutor(1, "read") as reading,
            ThreadPoolExecutor(1, "write") as writing,
        ):
            works = [self._work(pieces, reading) for _ in range(self._in_flight)]
            tasks = [asyncio.ensure_future(work) for work in (*works, self._write(writing))]
            try:
                await asyncio.gather(*tasks)
                await asyncio.get_running_loop().run_in_executor(writing, self._writer.finish)
            except BaseException as error:
                self._sender.stop()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                writing.submit(self._writer.abandon, error).result()
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
