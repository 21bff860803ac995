"""The requests of a piece: sent, tried again, halved until only the rows at fault are left.

A request that ends in a timeout, or kills what runs it, looks as one of an outage does. It is held
to be its rows' fault when, tried for long enough, it fails twice in a row and others are answered
each time: within the attempt or, where there are no others, right after it, when a row that was
answered before is sent again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.jobs.convert import Reject, Rows, Run
from penstock.jobs.failures import EngineError, FailureKind, JobError, TemporaryError
from penstock.jobs.model import Array, Engine, ModelInfo, TensorInfo, TensorRows, numpy_types
from penstock.jobs.pieces import Piece

_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 5.0
_LONGEST_PROOF_S = 10.0
"""For how long a sign of life is waited for: a worker that was killed takes a while to be back."""


@dataclass(slots=True, eq=False)
class Answer:
    """What came of a request.

    Attributes:
        segments: positions in the piece's batch and the outputs of these rows, in order.
        rejects: the other rows, by position.
    """

    segments: list[tuple[Rows, Mapping[str, Array]]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Request:
    """Rows of a piece that are sent together; `slot` is its place among the piece's."""

    slot: int
    run: Run
    start: int
    stop: int


def requests_of(piece: Piece, rows: int) -> list[Request]:
    """The requests of a piece, of at most so many rows each."""
    cuts = enumerate(_cuts(piece, rows))
    return [Request(slot, run, start, stop) for slot, (run, start, stop) in cuts]


def _cuts(piece: Piece, rows: int) -> Iterator[tuple[Run, int, int]]:
    for run in piece.runs:
        for start in range(0, len(run.rows), rows):
            yield run, start, min(start + rows, len(run.rows))


class Sender:
    """Gets requests answered.

    Threading: confined to the event loop.
    """

    def __init__(self, engine: Engine, model: ModelInfo, retry_s: float) -> None:
        """Sends nothing yet.

        Args:
            engine: what answers.
            model: the model.
            retry_s: how long a request is tried anew, from its first failure, before the job
                stops.
        """
        self._engine = engine
        self._model = model
        self._retry_s = retry_s
        self._outputs = [
            (tensor, tensor.name, tensor.wire_shape, _dtype(tensor.datatype))
            for tensor in model.outputs
        ]
        self._successes = 0
        self._answered: list[TensorRows] = []  # a row that was, and should be again
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends every wait for a better time."""
        self._stopping.set()

    async def answer(self, request: Request) -> Answer:
        """The outputs of a request's rows, or why rows of it have none.

        Raises:
            TemporaryError: nothing has been answered for too long.
            JobError: no request of this job can succeed.
        """
        answer = Answer()
        await self._solve(request.run, (request.start, request.stop), answer)
        return answer

    async def _solve(self, run: Run, rows: tuple[int, int], answer: Answer) -> None:
        """Answers some rows of a request."""
        start, stop = rows
        try:
            outputs = await self._infer_patiently(run, rows)
        except EngineError as error:
            if error.kind is FailureKind.FATAL:
                raise JobError(f"model '{self._model.name}': {error.reason}") from None
            if stop - start == 1:
                answer.rejects.append(Reject(int(run.rows[start]), error.reason))
                return
            middle = (start + stop) // 2
            await self._solve(run, (start, middle), answer)
            await self._solve(run, (middle, stop), answer)
            return
        answer.segments.append((run.rows[start:stop], outputs))

    async def _infer_patiently(self, run: Run, rows: tuple[int, int]) -> Mapping[str, Array]:
        start, stop = rows
        loop = asyncio.get_running_loop()
        wait_s = _FIRST_WAIT_S
        inputs = [tensor.slice(start, stop) for tensor in run.inputs]
        give_up: float | None = None  # before the first failure it may have waited for long
        is_blamed = False
        while True:
            before = self._successes
            try:
                outputs = self._checked(await self._engine.infer(self._model, inputs), stop - start)
            except EngineError as error:
                if error.kind is not FailureKind.RETRY:
                    raise
                if give_up is None:
                    give_up = loop.time() + self._retry_s
                else:
                    give_up += error.waited_s
                if loop.time() >= give_up:
                    await self._check_others_are_answered(error, before)
                    if is_blamed:
                        raise EngineError(FailureKind.ROWS, error.reason) from None
                    is_blamed = True
            else:
                self._successes += 1
                self._answered = [tensor.slice(start, start + 1) for tensor in run.inputs]
                return outputs
            await self._pause(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _check_others_are_answered(self, error: EngineError, before: int) -> None:
        """Raises TemporaryError unless this failure can be that of the request's own rows."""
        if error.is_suspect and (self._successes > before or await self._gives_sign_of_life()):
            return
        raise TemporaryError(
            f"model '{self._model.name}': no answer for {self._retry_s:g} s: {error.reason}"
        ) from None

    async def _gives_sign_of_life(self) -> bool:
        """Whether a row that was answered before is answered again, or others are."""
        if not self._answered:
            return False
        loop = asyncio.get_running_loop()
        give_up, wait_s = loop.time() + min(self._retry_s, _LONGEST_PROOF_S), _FIRST_WAIT_S
        before = self._successes
        while True:
            try:
                await self._engine.infer(self._model, self._answered)
                return True
            except EngineError:
                if self._successes > before:
                    return True
                if loop.time() >= give_up:
                    return False
            await self._pause(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise TemporaryError("the job was stopped")

    def _checked(self, outputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        """The outputs, [rows, *shape] each, if they are what the model promised."""
        checked = {}
        for tensor, name, shape, dtype in self._outputs:
            array = outputs.get(name)
            if array is None or array.shape != (rows, *shape) or array.dtype != dtype:
                self._refuse_unless_fitting(tensor, array, rows)
            assert array is not None
            checked[name] = array if tensor.shape else array.reshape(rows)
        return checked

    def _refuse_unless_fitting(self, tensor: TensorInfo, array: Array | None, rows: int) -> None:
        fault = "is missing" if array is None else _output_fault(tensor, array, rows)
        if fault:
            where = f"output '{tensor.name}' of model '{self._model.name}'"
            raise EngineError(FailureKind.ROWS, f"{where} {fault}")


def _output_fault(tensor: TensorInfo, array: Any, rows: int) -> str:
    wanted = (rows, *tensor.wire_shape)
    fits = len(array.shape) == len(wanted) and all(
        size in (-1, got) for size, got in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        return f"has shape {list(array.shape)}, expected {list(wanted)}"
    expected = _dtype(tensor.datatype)
    if array.dtype != expected:
        return f"holds {array.dtype}, expected {tensor.datatype}"
    return ""


def _dtype(datatype: str) -> Any:
    if datatype == "BYTES":
        return np.dtype(object)
    return np.dtype("<f4") if datatype == "BF16" else numpy_types()[datatype]
