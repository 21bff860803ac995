"""The asyncio client: `Client` with the waiting left to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc

from penstock_client import _operations as operations
from penstock_client._base import DEFAULT_TIMEOUT_S, BaseClient
from penstock_client._infer import (
    InferRequest,
    InferResult,
    InputValue,
    Outputs,
    Parameter,
    StreamMessages,
)
from penstock_client._job_clients import AsyncJobs
from penstock_client._jobs import Job, read_job, watch_request
from penstock_client._messages import JOB_METHODS, jobs_pb, pb
from penstock_client._operations import Operation, RegionT, T
from penstock_client._records import (
    CudaMemoryRegion,
    ModelIndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
)
from penstock_client._retry import Odds, RetryPolicy
from penstock_client._security import Tls, secured, with_token
from penstock_client._transport import AsyncGrpcTransport, AsyncTransport, ChannelOptions
from penstock_client.errors import PenstockError, RpcError, StreamResponseError
from penstock_client.regions import MemoryRegion

Requests = Iterable[InferRequest] | AsyncIterable[InferRequest]


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same methods and arguments, awaited.

        async with AsyncClient("localhost:8001") as client:
            results = await asyncio.gather(
                *(client.infer("digits", {"X": image}) for image in images)
            )

    Cancelling the task that awaits a call cancels the call on the server, too.

    Threading: confined to the event loop of its first call; it may be made outside one.
    Lifecycle: connects at the first call; `await close()`, or the end of `async with`, cancels
    what is in flight and lets go of the connection.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        channel_options: ChannelOptions = (),
        transport: AsyncTransport | None = None,
        odds: Odds | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Connects nothing yet; arguments as for `Client`, with an `AsyncTransport`."""
        headers = with_token(headers, token)
        super().__init__(url, timeout_s=timeout_s, retry=retry, headers=headers, odds=odds)
        credentials, channel_options = secured(tls, credentials, channel_options)
        self._transport = transport or AsyncGrpcTransport(url, credentials, channel_options)
        self._sleep = sleep

    @property
    def jobs(self) -> AsyncJobs:
        """Batch jobs of a Penstock server."""
        return AsyncJobs(self)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the client."""
        await self.close()

    async def close(self) -> None:
        """Cancels calls in flight and lets go of the connection. A second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            await self._transport.close()

    # Inference

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, InputValue],
        *,
        outputs: Outputs | None = None,
        version: str = "",
        request_id: str = "",
        priority: int = 0,
        timeout_us: int = 0,
        parameters: Mapping[str, Parameter] | None = None,
        classification: Mapping[str, int] | None = None,
        deadline_s: float | None = None,
    ) -> InferResult:
        """Runs a model once; arguments, result and errors as for `Client.infer`."""
        request = InferRequest(
            model,
            inputs,
            outputs=outputs,
            version=version,
            request_id=request_id,
            priority=priority,
            timeout_us=timeout_us,
            parameters=parameters or {},
            classification=classification or {},
        )
        return await self._run(operations.infer(request), deadline_s)

    @overload
    def stream(
        self,
        requests: Requests,
        *,
        raise_errors: Literal[False] = False,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[InferResult | StreamResponseError, None]: ...

    @overload
    def stream(
        self,
        requests: Requests,
        *,
        raise_errors: Literal[True],
        deadline_s: float | None = None,
    ) -> AsyncGenerator[InferResult, None]: ...

    def stream(
        self,
        requests: Requests,
        *,
        raise_errors: bool = False,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[InferResult | StreamResponseError, None]:
        """Sends requests over one stream and yields the responses; as `Client.stream`.

        `requests` may be an asynchronous iterable, so that a request can wait for an earlier
        response. To leave the loop early, `contextlib.aclosing` the generator.
        """
        return self._stream(requests, raise_errors, deadline_s)

    # Health

    async def server_live(self, *, deadline_s: float | None = None) -> bool:
        """Whether the server's process answers. Never retried; UNAVAILABLE when unreachable."""
        return await self._run(operations.server_live(), deadline_s)

    async def server_ready(self, *, deadline_s: float | None = None) -> bool:
        """Whether the server takes inference. Never retried; UNAVAILABLE when unreachable."""
        return await self._run(operations.server_ready(), deadline_s)

    async def model_ready(
        self, model: str, version: str = "", *, deadline_s: float | None = None
    ) -> bool:
        """Whether the model takes inference; some servers say NOT_FOUND instead of False."""
        return await self._run(operations.model_ready(model, version), deadline_s)

    # What there is

    async def server_metadata(self, *, deadline_s: float | None = None) -> ServerMetadata:
        """The server's name, version and protocol extensions."""
        return await self._run(operations.server_metadata(), deadline_s)

    async def model_metadata(
        self, model: str, version: str = "", *, deadline_s: float | None = None
    ) -> ModelMetadata:
        """The model's inputs and outputs."""
        return await self._run(operations.model_metadata(model, version), deadline_s)

    async def model_config(
        self, model: str, version: str = "", *, deadline_s: float | None = None
    ) -> dict[str, Any]:
        """The model's configuration, fields named as in config.pbtxt, defaults filled in."""
        return await self._run(operations.model_config(model, version), deadline_s)

    async def statistics(
        self, model: str = "", version: str = "", *, deadline_s: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """What models have done, one entry per version; "" is all models, or all versions."""
        return await self._run(operations.statistics(model, version), deadline_s)

    async def repository_index(
        self, *, ready_only: bool = False, deadline_s: float | None = None
    ) -> tuple[ModelIndexEntry, ...]:
        """The models in the repository, one entry per version, with state and reason."""
        return await self._run(operations.repository_index(ready_only), deadline_s)

    # Loading

    async def load_model(
        self,
        model: str,
        *,
        config: Mapping[str, Any] | str | None = None,
        files: Mapping[str, bytes] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Loads a model, or loads it anew; as `Client.load_model`. Never retried."""
        await self._run(operations.load_model(model, config, files), deadline_s)

    async def unload_model(
        self, model: str, *, unload_dependents: bool = False, deadline_s: float | None = None
    ) -> None:
        """Asks the server to unload a model; it may still finish requests. Never retried."""
        await self._run(operations.unload_model(model, unload_dependents), deadline_s)

    # Shared memory

    @asynccontextmanager
    async def shared_memory(
        self, memory: RegionT, *, deadline_s: float | None = None
    ) -> AsyncIterator[RegionT]:
        """Registers the memory for the length of an `async with` block; as `Client`."""
        await self.register_shared_memory(memory, deadline_s=deadline_s)
        try:
            yield memory
        except BaseException:
            with suppress(PenstockError):  # what went wrong in the block is the news
                await self._run(operations.forget(memory), deadline_s)
            raise
        await self._run(operations.forget(memory), deadline_s)

    async def register_shared_memory(
        self, memory: MemoryRegion, *, deadline_s: float | None = None
    ) -> None:
        """Tells the server of the memory, by its name; ALREADY_EXISTS where it knows one such."""
        await self._run(operations.register_shared_memory(memory), deadline_s)

    async def unregister_shared_memory(
        self, name: str = "", *, deadline_s: float | None = None
    ) -> None:
        """Has the server forget a region, or all of everybody's with "". Requests go on."""
        await self._run(operations.unregister_shared_memory(name), deadline_s)

    async def shared_memory_status(
        self, name: str = "", *, deadline_s: float | None = None
    ) -> tuple[SharedMemoryRegion, ...]:
        """What is registered, by name; with a name that one, or NOT_FOUND."""
        return await self._run(operations.shared_memory_status(name), deadline_s)

    async def unregister_cuda_memory(
        self, name: str = "", *, deadline_s: float | None = None
    ) -> None:
        """As `unregister_shared_memory`, of regions on GPUs."""
        await self._run(operations.unregister_cuda_memory(name), deadline_s)

    async def cuda_memory_status(
        self, name: str = "", *, deadline_s: float | None = None
    ) -> tuple[CudaMemoryRegion, ...]:
        """What is registered of GPUs' memory, by name; with a name that one, or NOT_FOUND."""
        return await self._run(operations.cuda_memory_status(name), deadline_s)

    # How it is sent

    async def _run(self, operation: Operation[T], deadline_s: float | None) -> T:
        plan = self._plan(operation, deadline_s)
        while True:
            call = self._next_attempt(operation, plan)
            try:
                answer = await self._transport.unary(call, operation.request)
            except RpcError as error:
                wait_s = plan.wait_after(error)
            else:
                plan.succeeded()
                return operation.result(answer, call.trailing)
            await self._sleep(wait_s)

    async def _stream(
        self, requests: Requests, raise_errors: bool, deadline_s: float | None
    ) -> AsyncGenerator[Any, None]:
        call = self._stream_call(deadline_s, raise_errors=raise_errors)
        messages = StreamMessages()
        answers = self._transport.stream(call, _drawn(requests, messages.build))
        async with aclosing(answers):
            async for answer in answers:
                item = messages.read(answer)
                if raise_errors and isinstance(item, StreamResponseError):
                    raise item
                yield item

    async def _watch(self, job_id: str, deadline_s: float | None) -> AsyncGenerator[Job, None]:
        call = self._open_call(JOB_METHODS["Watch"], deadline_s)
        answers = self._transport.stream(call, _once(watch_request(job_id)))
        async with aclosing(answers):
            async for answer in answers:
                yield read_job(answer)


async def _once(message: jobs_pb.JobRequest) -> AsyncIterator[jobs_pb.JobRequest]:
    yield message


async def _drawn(
    requests: Requests, build: Callable[[InferRequest], pb.ModelInferRequest]
) -> AsyncIterator[pb.ModelInferRequest]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield build(request)
    else:
        for request in requests:
            yield build(request)
