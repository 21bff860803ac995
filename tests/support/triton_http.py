"""tritonclient's two HTTP clients behind one face, so that a test holds for both."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.triton_clients import Blocking
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.http import aio as triton_aio


@contextmanager
def http_client(face: str, url: str, **options: Any) -> Iterator[Any]:
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


def http_tensor(name: str, array: Any, datatype: str, *, binary: bool = True) -> InferInput:
    """An input of these values."""
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made
