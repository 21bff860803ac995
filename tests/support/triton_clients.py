"""tritonclient's two gRPC clients behind one face, so that a test holds for both."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc import aio as triton_aio

FACES = ["sync", "aio"]


class Blocking:
    """The asyncio client, every method run to its end."""

    def __init__(self, runner: asyncio.Runner, client: Any) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._runner.run(getattr(self._client, name)(*args, **kwargs))

        return call


@contextmanager
def triton_client(face: str, url: str, **options: Any) -> Iterator[Any]:
    """A client with the methods of the sync one, of either face."""
    if face == "sync":
        with InferenceServerClient(url, **options) as client:
            yield client
        return

    async def connect() -> triton_aio.InferenceServerClient:
        return triton_aio.InferenceServerClient(url, **options)

    with asyncio.Runner() as runner:
        client = runner.run(connect())
        try:
            yield Blocking(runner, client)
        finally:
            runner.run(client.close())


def tensor(name: str, array: Any, datatype: str) -> InferInput:
    """An input of these values, raw."""
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def simple_inputs(rows: int = 1, start: int = 0) -> list[InferInput]:
    """Inputs of `simple`: numbers from `start` on, and ones."""
    numbers = np.arange(start, start + rows * 16, dtype=np.int32).reshape(rows, 16)
    ones = np.ones((rows, 16), np.int32)
    return [tensor("INPUT0", numbers, "INT32"), tensor("INPUT1", ones, "INT32")]
