"""The core in this process as the engine of jobs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from penstock import codec
from penstock.core import Caller, Core, deadline_ns
from penstock.errors import Code, CoreError
from penstock.jobs.failures import EngineError, FailureKind, NotServedError, engine_error
from penstock.jobs.model import Array, ModelInfo, TensorRows, WireTensor, model_info, numpy_types

_log = logging.getLogger("penstock.jobs")


class LocalEngine:
    """Runs requests in the core.

    In the background of a server they wait while other requests leave them no room: such a wait has
    no end but the job's, and is told in the log every `timeout_s`. A deadline that passes is then
    the model's own, a failure like any other.

    Threading: confined to the core's event loop.
    Ownership: borrows the core, which serves the model.
    """

    def __init__(
        self,
        core: Core,
        metadata: Callable[[str, str], codec.ModelMetadata],
        config: Callable[[str, str], codec.ModelConfig],
        digest: Callable[[str, str], str],
        *,
        timeout_s: float = 60.0,
        caller: Caller | None = None,
        background_batch_size: int | None = None,
        most_in_flight: int = 0,
    ) -> None:
        """Runs nothing yet.

        Args:
            core: it serves the models.
            metadata: of a model and version; raises CoreError for what is not served.
            config: of a model and version.
            digest: what identifies a version's content.
            timeout_s: for each request that is not of the background.
            caller: who asks, where the core wants to know.
            background_batch_size: requests are background requests, of at most so many rows; 0 =
                as many as the model takes, None = they are like any other.
            most_in_flight: background requests of all jobs together that the core has at a time,
                others wait here; 0 = no bound.
        """
        self._core = core
        self._metadata = metadata
        self._config = config
        self._digest = digest
        self._timeout_s = timeout_s
        self._caller = caller
        self._background_batch_size = background_batch_size
        self._places = asyncio.Semaphore(most_in_flight) if most_in_flight else nullcontext()
        self._told_s: dict[str, float] = {}
        self._heads: dict[Any, bytes] = {}

    async def describe(self, model: str, version: str) -> ModelInfo:
        """The model as it is served; NotServedError where it is not."""
        try:
            versions = self._metadata(model, version).versions
            chosen = version or max(versions, key=int)
            found, config = self._metadata(model, chosen), self._config(model, chosen)
        except CoreError as error:
            raise NotServedError(str(error)) from None
        digest = await asyncio.to_thread(self._digest, model, chosen)
        tensors = (_wire_tensors(found.inputs, config), _wire_tensors(found.outputs, config))
        info = model_info(model, chosen, tensors, config.max_batch_size or 0, digest)
        return replace(info, most_request_rows=self._background_batch_size or 0)

    async def infer(self, model: ModelInfo, inputs: Sequence[TensorRows]) -> Mapping[str, Array]:
        """Runs one request."""
        request = self._request(model, inputs)
        began_s = asyncio.get_running_loop().time()
        try:
            response = await self._answer(model, request)
        except CoreError as error:
            may_retry = error.retry_after_ms is not None and error.retry_after_ms >= 0
            waited_s = self._waited_s(error, began_s)
            raise engine_error(
                error.code, error.message, may_retry=may_retry, waited_s=waited_s
            ) from None
        return {
            name: _array(model, name, datatype, shape, raw)
            for name, datatype, shape, raw in codec.parse_infer_response(response)
        }

    async def _answer(self, model: ModelInfo, request: bytes) -> bytes:
        if self._background_batch_size is None:
            return await self._core.infer(request, deadline_ns(self._timeout_s), self._caller)
        with self._telling_of_waits(model.name):
            async with self._places:
                return await self._core.infer(request, 0, self._caller, background=True)

    def _waited_s(self, error: CoreError, began_s: float) -> float:
        """What of a failed request's time it waited, for as much as its failure tells."""
        # Of an unloaded version, say; where a worker died instead, it took no long time.
        is_waiting = self._background_batch_size is not None and error.code == Code.UNAVAILABLE
        return asyncio.get_running_loop().time() - began_s if is_waiting else 0.0

    @contextmanager
    def _telling_of_waits(self, model: str) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def tell() -> None:
            nonlocal timer
            self._tell_of_wait(model)
            timer = loop.call_later(self._timeout_s, tell)

        timer = loop.call_later(self._timeout_s, tell)
        try:
            yield
        finally:
            timer.cancel()

    def _tell_of_wait(self, model: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._told_s.get(model, -math.inf) + self._timeout_s:
            return
        self._told_s[model] = now_s
        text = "a job has waited %g s for model '%s': it is busy with other requests, or slow"
        _log.warning(text, self._timeout_s, model)

    def _request(self, model: ModelInfo, inputs: Sequence[TensorRows]) -> bytes:
        described = tuple((each.name, each.datatype, _shape(model, each)) for each in inputs)
        key = (model.name, model.version, described)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) > 1000:  # of shapes that never come again
                self._heads.clear()
            head = codec.infer_request_head(model.name, model.version, described)
            self._heads[key] = head
        return codec.join_infer_request(head, [each.raw() for each in inputs])


def _wire_tensors(tensors: Sequence[Any], config: codec.ModelConfig) -> list[WireTensor]:
    optional = {tensor.name for tensor in config.inputs if tensor.optional}
    return [
        WireTensor(each.name, each.datatype, tuple(each.shape), each.name in optional)
        for each in tensors
    ]


def _shape(model: ModelInfo, tensor: TensorRows) -> tuple[int, ...]:
    if not model.has_batch:
        return tensor.shape
    if tensor.datatype != "BYTES":
        return (len(tensor.values), *tensor.shape)
    size = math.prod(tensor.shape)
    return (len(tensor.values) // size if size else 0, *tensor.shape)


def _array(model: ModelInfo, name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> Array:
    if not model.has_batch:
        shape = (1, *shape)
    try:
        if datatype == "BYTES":
            return _bytes_array(raw, shape)
        if datatype == "BF16":
            bits = np.frombuffer(raw, "<u2").astype("<u4") << 16
            return bits.view("<f4").reshape(shape)
        return np.frombuffer(raw, numpy_types()[datatype]).reshape(shape)
    except (ValueError, KeyError):
        raise EngineError(
            FailureKind.ROWS,
            f"output '{name}' of model '{model.name}': {len(raw)} bytes are no {datatype} "
            f"{list(shape)}",
        ) from None


def _bytes_array(raw: bytes, shape: tuple[int, ...]) -> Array:
    values = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise ValueError
        values.append(raw[at + 4 : end])
        at = end
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def directory_digest(root: Path, folders: Sequence[str]) -> str:
    """SHA-256 over the sorted listing, with the SHA-256 of each file.

    Args:
        root: the model's directory.
        folders: names in it that count, each a file or a directory.

    Blocking: reads every file.
    """
    import hashlib

    listing = []
    for folder in folders:
        path = root / folder
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            listing.append(f"{digest}  {file.relative_to(root).as_posix()}\n")
    return hashlib.sha256("".join(sorted(listing)).encode()).hexdigest()
