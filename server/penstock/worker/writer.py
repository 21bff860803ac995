"""Writer: answers into the slab for outputs, checked against the model's signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.worker.channel import ALIGNMENT, Channel
from penstock.worker.datatypes import BF16, BYTES, NAMES, NUMPY, number_of_array
from penstock.worker.elements import encode_elements
from penstock.worker.failure import MAX_TEXT_BYTES, ModelFault, NoRoomError, describe
from penstock.worker.model import Answer
from penstock.worker.wire import Kind, OutputRecord, ResultRecord, Spec, encode_results

MAX_RANK = 16
MAX_OUTPUT_BYTES = 2 << 30
"""Of all outputs of a batch, as far as the server takes them: more than any response can hold."""


class Writer:
    """Writes answers to the slab for outputs and tells the server."""

    def __init__(
        self,
        channel: Channel,
        specs: Sequence[Spec],
        fault: Callable[[Exception], Answer],
        *,
        may_leave_out: bool = False,
    ) -> None:
        """Args: may_leave_out: an answer may have some of the outputs only."""
        self._channel = channel
        self._specs = specs
        self._fault = fault
        self._may_leave_out = may_leave_out

    def write(
        self,
        kind: Kind,
        answers: Sequence[Answer],
        wanted: Sequence[Sequence[int]],
        batch: int,
        *,
        request: int = 0,
        value: int = 0,
    ) -> bool:
        """Sends answers with the outputs that are wanted of each.

        Returns:
            Whether all were sent as they are: one that cannot be becomes a failure.
        """
        results: list[ResultRecord] = []
        are_sendable = True
        writes: list[tuple[int, Any]] = []
        end = 0
        for index, answer in enumerate(answers):
            mark = len(writes), end
            try:
                records, end = self._plan(answer, wanted[index], writes, end)
            except (ModelFault, NoRoomError, MemoryError) as error:
                del writes[mark[0] :]
                end = mark[1]
                answer, records = self._fault(error), []
                are_sendable = False
            results.append(_result(answer, records))
        body = encode_results(results)
        try:
            slab = self._channel.reserve(end + ALIGNMENT + len(body))
        except NoRoomError as error:
            writes, end, are_sendable = [], 0, False
            body = encode_results([_result(self._fault(error), [])] * len(answers))
        for offset, data in writes:
            if isinstance(data, bytes):
                slab[offset : offset + len(data)] = data
            else:
                np.ndarray(data.shape, data.dtype, slab, offset)[...] = data
        self._channel.send_body(kind, body, batch, end, request=request, value=value)
        return are_sendable

    def _plan(
        self, answer: Answer, wanted: Sequence[int], writes: list[tuple[int, Any]], end: int
    ) -> tuple[list[OutputRecord], int]:
        records: list[OutputRecord] = []
        if answer.code:
            return records, end
        for index in wanted:
            spec = self._specs[index]
            if spec.name not in answer.outputs:
                if self._may_leave_out:
                    continue
                given = ", ".join(f"'{name}'" for name in answer.outputs) or "none"
                raise ModelFault(f"output '{spec.name}' is missing, the model gave {given}")
            data, dims = _sendable(spec, answer.outputs[spec.name])
            size = len(data) if isinstance(data, bytes) else data.nbytes
            end = -(-end // ALIGNMENT) * ALIGNMENT
            if size:
                writes.append((end, data))
            if end + size > MAX_OUTPUT_BYTES:
                raise NoRoomError(
                    f"outputs take at least {end + size} bytes, expected at most {MAX_OUTPUT_BYTES}"
                )
            records.append((index, spec.datatype, end, size, dims))
            end += size
        return records, end


def _result(answer: Answer, records: list[OutputRecord]) -> ResultRecord:
    return answer.code, answer.text.encode(errors="replace")[:MAX_TEXT_BYTES], records


def _sendable(spec: Spec, value: object) -> tuple[npt.NDArray[Any] | bytes, tuple[int, ...]]:
    try:
        array: npt.NDArray[Any] = np.asarray(value)
    except Exception as error:  # rows of different lengths, memory of a GPU
        raise ModelFault(f"output '{spec.name}' is no array: {describe(error)}") from None
    number = number_of_array(array.dtype)
    if spec.datatype == BF16 and array.dtype == np.uint16:
        number = BF16
    if number != spec.datatype:
        got = NAMES[number] if number else f"numpy's {array.dtype}"
        raise ModelFault(f"output '{spec.name}' came as {got}, expected {NAMES[spec.datatype]}")
    if array.ndim > MAX_RANK:
        raise ModelFault(
            f"output '{spec.name}' came with {array.ndim} dimensions, at most {MAX_RANK} are "
            "supported"
        )
    if number == BYTES:
        try:
            return encode_elements(array), array.shape
        except (TypeError, ValueError) as error:
            raise ModelFault(f"output '{spec.name}': {error}") from None
    return array.astype(NUMPY[number], copy=False), array.shape
