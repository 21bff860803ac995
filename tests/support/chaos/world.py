"""The stage of the chaos test: a repository of every temper, and what all troublemakers share."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tests.support.fixture_models import (
    write_identity,
    write_model,
    write_repeat,
    write_simple,
    write_square,
)
from tests.support.models import classical, onnx_files
from tests.support.raw_grpc import RawClient, raw_client
from tests.support.run_server import ServerProcess

OK = grpc.StatusCode.OK
END = grpc.aio.EOF  # type: ignore[attr-defined]
MAX_MESSAGE_BYTES = 4 << 20

BATCHED = "max_batch_size: 8\ndynamic_batching { }"
SLOW = """max_batch_size: 2
dynamic_batching {
  default_queue_policy {
    max_queue_size: 24 default_timeout_microseconds: 200000 allow_timeout_override: true
  }
}"""

SERVED = (
    *("simple", "identity", "words", "halves", "digits", "slow"),
    *("fails", "throws", "wrong_shape", "wrong_bytes", "picky", "moving", "reloaded"),
    *("repeat_int32", "square_int32"),
)
"""The models that serve from the start; `broken` never does."""


@dataclass(frozen=True)
class Digits:
    """Images, and what onnxruntime in this process says of them."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def write_repository(root: Path) -> Digits:
    """Every model of the chaos."""
    write_simple(root, config=BATCHED)
    write_identity(root, config=BATCHED)
    write_identity(root, "words", config=BATCHED, datatype="BYTES")
    write_identity(root, "halves", config=BATCHED, datatype="FP16")
    write_identity(root, "slow", config=SLOW, execute_delay_ms="10")
    write_identity(root, "wrong_shape", config=BATCHED, kind="wrong_shape")
    write_identity(root, "wrong_bytes", config=BATCHED, kind="wrong_bytes")
    write_identity(root, "picky", config=BATCHED, fail_rows="3", message="not three")
    write_model(root, "fails", kind="fail", config=BATCHED, message="not today")
    write_model(root, "throws", kind="throw", config=BATCHED, message="torn apart")
    write_model(root, "broken", kind="fail_load", message="no such luck")
    write_repeat(root)
    write_square(root)
    for name in ("moving", "reloaded"):
        write_simple(root, name, config=BATCHED)
    model, images = classical.digits()
    config = "max_batch_size: 16\ndynamic_batching { }"
    onnx_files.write_model(root, "digits", model, config=config)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    labels, probabilities = session.run(None, {session.get_inputs()[0].name: images})
    return Digits(images, labels, probabilities)


@dataclass
class World:
    """What the troublemakers share.

    Attributes:
        server: under test, in a process of its own.
        digits: the images and their true answers.
        clients: connections that stay; troublemakers open others.
        tally: what happened how often, "actor: outcome".
    """

    server: ServerProcess
    digits: Digits
    clients: list[RawClient]
    tally: Counter[str] = field(default_factory=Counter)

    def port(self, side: str) -> int:
        return int(self.server.addresses[side].rsplit(":", 1)[1])

    def client(self, rng: random.Random) -> RawClient:
        return rng.choice(self.clients)

    def passing_client(self) -> Any:
        """A connection for one troublemaker."""
        return raw_client(self.server.addresses["gRPC"])

    def count(self, actor: str, code: grpc.StatusCode) -> None:
        self.tally[f"{actor}: {code.name}"] += 1


Actor = Callable[[World, random.Random], Awaitable[None]]


@asynccontextmanager
async def connected(server: ServerProcess, digits: Digits) -> AsyncIterator[World]:
    """A world with four connections."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(raw_client(server.addresses["gRPC"])) for _ in range(4)
        ]
        yield World(server, digits, clients)


async def outcome(call: Any) -> tuple[grpc.StatusCode, Any]:
    """Status of a call, and its bytes or the text of its failure."""
    try:
        return OK, await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
