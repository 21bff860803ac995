"""A running server as the engine of jobs, reached with penstock_client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import Code
from penstock.jobs.failures import EngineError, FailureKind, JobError, TemporaryError, engine_error
from penstock.jobs.model import Array, ModelInfo, TensorRows, WireTensor, model_info

if TYPE_CHECKING:
    from penstock_client import AsyncClient

_PUSHBACK = "grpc-retry-pushback-ms"


@asynccontextmanager
async def remote_engine(
    url: str, settings: Mapping[str, Any], timeout_s: float, background: bool = False
) -> AsyncIterator[RemoteEngine]:
    """A server; ValueError for a url that is none.

    Args:
        url: of the server.
        settings: of its client.
        timeout_s: for each request.
        background: ask for background requests, which run in what others leave.
    """
    from penstock_client import AsyncClient, RetryPolicy

    retry = RetryPolicy(max_attempts=1)  # the job does it, and knows for how long
    async with AsyncClient(url, timeout_s=timeout_s, retry=retry, **settings) as client:
        yield RemoteEngine(client, background=background)


class RemoteEngine:
    """Sends requests to a server.

    Threading: confined to the client's event loop.
    Ownership: borrows the client; it retries nothing itself, the job does.
    """

    def __init__(self, client: AsyncClient, *, background: bool = False) -> None:
        self._client = client
        self._is_background = background
        self._parameters = {"penstock_background": True} if background else {}

    async def describe(self, model: str, version: str) -> ModelInfo:
        """The model as the server has it; its digest is its configuration's."""
        from penstock_client import PenstockError, RpcError

        try:
            found = await self._client.model_metadata(model, version)
            chosen = version or max(found.versions, key=_as_number, default="")
            found = await self._client.model_metadata(model, chosen)
            config = await self._client.model_config(model, chosen)
        except RpcError as error:
            failure = engine_error(error.code.value[0], error.message)
            kind = TemporaryError if failure.kind is FailureKind.RETRY else JobError
            raise kind(f"model '{model}': {failure.reason}") from None
        except PenstockError as error:
            raise JobError(f"model '{model}': {error}") from None
        text = json.dumps(config, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        optional = {each["name"] for each in config.get("input", ()) if each.get("optional")}
        inputs, outputs = (
            [WireTensor(t.name, t.datatype, tuple(t.shape), t.name in optional) for t in tensors]
            for tensors in (found.inputs, found.outputs)
        )
        most = int(config.get("max_batch_size", 0))
        return model_info(model, chosen, (inputs, outputs), most, f"config:{digest}")

    async def infer(self, model: ModelInfo, inputs: Sequence[TensorRows]) -> Mapping[str, Array]:
        """Runs one request."""
        from penstock_client import PenstockError, RpcError

        arrays = {each.name: _sent(model, each) for each in inputs}
        try:
            result = await self._client.infer(
                model.name, arrays, version=model.version, parameters=self._parameters
            )
        except RpcError as error:
            code = error.code.value[0]
            # In the background a request that took too long may never have had a turn.
            has_waited = self._is_background and code == Code.DEADLINE_EXCEEDED
            may_retry = _PUSHBACK in error.details or has_waited
            raise engine_error(code, error.message, may_retry=may_retry) from None
        except PenstockError as error:
            raise EngineError(FailureKind.ROWS, str(error)) from None
        return {name: _received(model, array) for name, array in result.items()}


def _as_number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else -1, version)


def _sent(model: ModelInfo, tensor: TensorRows) -> Any:
    from penstock_client import Tensor

    array = tensor.array()
    if not model.has_batch:
        array = array[0]
    return Tensor(array, "BF16") if tensor.datatype == "BF16" else array


def _received(model: ModelInfo, array: Array) -> Array:
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return array if model.has_batch else array[None]
