"""What the loop of a worker needs of a model, whichever kind it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from penstock.worker.failure import ModelFault, NoRoomError, describe, report
from penstock.worker.wire import Request, Signature

RESOURCE_EXHAUSTED = 8
INTERNAL = 13
"""gRPC's code of a model's failure; the one above of outputs that there is no room for."""


@dataclass(frozen=True)
class Batch:
    """inputs: by name, batch dimension first. wanted: names of outputs."""

    inputs: dict[str, npt.NDArray[Any]]
    wanted: tuple[str, ...]
    requests: Sequence[Request]


@dataclass(frozen=True)
class Answer:
    """The outputs of a batch or a request by name, or why there are none."""

    outputs: dict[str, Any]
    code: int = 0
    text: str = ""


def fault(model_name: str, error: BaseException) -> Answer:
    """What a batch or a request is answered whose model failed; the log gets the traceback."""
    if isinstance(error, ModelFault | NoRoomError):
        text = str(error)
    else:
        report(error)
        text = describe(error)
    code = RESOURCE_EXHAUSTED if isinstance(error, NoRoomError) else INTERNAL
    return Answer(
        {}, code, f"Failed to process the request(s) for model '{model_name}', message: {text}"
    )


def inputs_of_requests(batch: Batch, has_batch: bool) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Each request's rows of the batch's inputs."""
    row = 0
    for request in batch.requests:
        end = row + request.rows
        yield {name: array[row:end] if has_batch else array for name, array in batch.inputs.items()}
        row = end


class Stream(Protocol):
    """A request of a decoupled model, to be answered any number of times."""

    @property
    def request(self) -> Request:
        """What was asked."""

    def send(self, answer: Answer | None, is_last: bool) -> None:
        """Blocking, while there is no room. Sends a response, that it was the last, or both."""

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""


class Model(Protocol):
    """A loaded model."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    def start(self, instance_name: str) -> None:
        """Makes it ready. Whatever it raises is the model's own."""

    def run(self, batch: Batch) -> list[Answer]:
        """One answer, or one for each request. Whatever it raises fails the batch."""

    def run_streams(
        self, batch: Batch, streams: Sequence[Stream]
    ) -> Sequence[Iterator[dict[str, Any]]]:
        """Of a decoupled model: what yields each stream's responses, or nothing if it sends them.

        Whatever it raises fails the batch.
        """

    def stop(self) -> None:
        """The last call."""
