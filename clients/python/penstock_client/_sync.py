"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
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
from penstock_client._job_clients import Jobs
from penstock_client._jobs import Job, read_job, watch_request
from penstock_client._messages import JOB_METHODS
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
from penstock_client._transport import ChannelOptions, GrpcTransport, Transport
from penstock_client.errors import PenstockError, RpcError, StreamResponseError
from penstock_client.regions import MemoryRegion


class Client(BaseClient):
    """A blocking client of one server that speaks the Open Inference (KServe v2) gRPC protocol.

        with Client("localhost:8001") as client:
            result = client.infer("digits", {"X": images})      # images: float32 [n, 64]
            labels = result["label"]

    Every method may raise `RpcError` (by status code, see `penstock_client.errors`) and
    `ClientClosedError`, and takes `deadline_s`: seconds the whole call may take, retries and the
    waits between them included. None means the client's `timeout_s`, `math.inf` no limit.

    Calls that fail with UNAVAILABLE are sent again as `RetryPolicy` says, except where a second
    run could do harm or the first answer is wanted: steps of a sequence, streams, load and
    unload, and the health questions.

    Threading: thread-safe; share one client, its connection carries all calls at once.
    Lifecycle: connects at the first call; `close()`, or the end of `with`, cancels what is in
    flight and lets go of the connection.
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
        transport: Transport | None = None,
        odds: Odds | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects nothing yet.

        Args:
            url: A gRPC target: "host:port", "dns:///name:port", "unix:/path".
            timeout_s: Deadline of calls that are given none, seconds; `math.inf` for no limit.
            retry: When to send a failed call again; None for `RetryPolicy()`.
            tls: How to speak TLS; None for plain text.
            token: API key or bearer token, sent with every call; use TLS beyond loopback.
            credentials: gRPC's own, in place of `tls`: tokens that change go in with
                `grpc.composite_channel_credentials`.
            headers: Metadata to send with every call; values are bytes for keys in `-bin`.
            channel_options: Further gRPC channel arguments, for instance keepalive.
            transport: What sends in place of gRPC (a `MockTransport`); the url is then a name.
            odds: Clock and randomness of the retries; for tests.
            sleep: Waits between attempts; for tests.

        Raises:
            ValueError: The url is no gRPC target, or `tls`, `token` will not do.
        """
        headers = with_token(headers, token)
        super().__init__(url, timeout_s=timeout_s, retry=retry, headers=headers, odds=odds)
        credentials, channel_options = secured(tls, credentials, channel_options)
        self._transport = transport or GrpcTransport(url, credentials, channel_options)
        self._sleep = sleep

    @property
    def jobs(self) -> Jobs:
        """Batch jobs of a Penstock server."""
        return Jobs(self)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the client."""
        self.close()

    def close(self) -> None:
        """Cancels calls in flight and lets go of the connection. A second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._transport.close()

    # Inference

    def infer(
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
        """Runs a model once.

        Args:
            model: The model's name.
            inputs: Array, or `SharedTensor`, by input name; dtypes as in
                `penstock_client.tensors`, shapes as in `model_metadata`, batch dimension included.
            outputs: Outputs to return, None for all; or a mapping that says of each into which
                `SharedRoom` it goes.
            version: The model version, "" for the one the server prefers.
            request_id: Echoed in the result and in errors.
            priority: 1 is the most urgent, 0 the model's default.
            timeout_us: Microseconds the request may wait in the server's queue, 0 for the
                model's default; past it the answer is UNAVAILABLE.
            parameters: Further request parameters.
            classification: Outputs to return as their k best classes, as `{output: k}`.
            deadline_s: See the class.

        Returns:
            The outputs by name, and what else the server says.

        Raises:
            TensorError: An input cannot be sent; the message names model and input.
            ProtocolError: The answer cannot be read.
            RpcError: The call failed, for instance `InvalidArgumentError` for a wrong shape.
        """
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
        return self._run(operations.infer(request), deadline_s)

    @overload
    def stream(
        self,
        requests: Iterable[InferRequest],
        *,
        raise_errors: Literal[False] = False,
        deadline_s: float | None = None,
    ) -> Generator[InferResult | StreamResponseError, None, None]: ...

    @overload
    def stream(
        self,
        requests: Iterable[InferRequest],
        *,
        raise_errors: Literal[True],
        deadline_s: float | None = None,
    ) -> Generator[InferResult, None, None]: ...

    def stream(
        self,
        requests: Iterable[InferRequest],
        *,
        raise_errors: bool = False,
        deadline_s: float | None = None,
    ) -> Generator[InferResult | StreamResponseError, None, None]:
        """Sends requests over one stream and yields the responses as they come.

        Requests are drawn from the iterable on a thread of its own, ahead of the responses. A
        model that answers each request once gives its responses in request order. The stream
        opens at the first `next()` and ends when all requests are answered; closing the generator
        early (`contextlib.closing`) cancels what is in flight. Nothing is retried.

        Args:
            requests: What to send. If it raises, or holds a request that cannot be sent, the
                responses to those before it are yielded, then that exception is raised.
            raise_errors: How the failure of one request shows. False: a `StreamResponseError` is
                yielded in its place and the stream goes on. True: the first one is raised and
                ends the stream; a server that heeds `triton_grpc_error` then gives its real code.
            deadline_s: Seconds for the whole stream; None for no limit.

        Raises:
            RpcError: The stream itself failed.
        """
        return self._stream(requests, raise_errors, deadline_s)

    # Health

    def server_live(self, *, deadline_s: float | None = None) -> bool:
        """Whether the server's process answers. Never retried; UNAVAILABLE when unreachable."""
        return self._run(operations.server_live(), deadline_s)

    def server_ready(self, *, deadline_s: float | None = None) -> bool:
        """Whether the server takes inference. Never retried; UNAVAILABLE when unreachable."""
        return self._run(operations.server_ready(), deadline_s)

    def model_ready(
        self, model: str, version: str = "", *, deadline_s: float | None = None
    ) -> bool:
        """Whether the model takes inference; some servers say NOT_FOUND instead of False."""
        return self._run(operations.model_ready(model, version), deadline_s)

    # What there is

    def server_metadata(self, *, deadline_s: float | None = None) -> ServerMetadata:
        """The server's name, version and protocol extensions."""
        return self._run(operations.server_metadata(), deadline_s)

    def model_metadata(
        self, model: str, version: str = "", *, deadline_s: float | None = None
    ) -> ModelMetadata:
        """The model's inputs and outputs."""
        return self._run(operations.model_metadata(model, version), deadline_s)

    def model_config(
        self, model: str, version: str = "", *, deadline_s: float | None = None
    ) -> dict[str, Any]:
        """The model's configuration, fields named as in config.pbtxt, defaults filled in."""
        return self._run(operations.model_config(model, version), deadline_s)

    def statistics(
        self, model: str = "", version: str = "", *, deadline_s: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """What models have done, one entry per version; "" is all models, or all versions."""
        return self._run(operations.statistics(model, version), deadline_s)

    def repository_index(
        self, *, ready_only: bool = False, deadline_s: float | None = None
    ) -> tuple[ModelIndexEntry, ...]:
        """The models in the repository, one entry per version, with state and reason."""
        return self._run(operations.repository_index(ready_only), deadline_s)

    # Loading

    def load_model(
        self,
        model: str,
        *,
        config: Mapping[str, Any] | str | None = None,
        files: Mapping[str, bytes] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Loads a model, or loads it anew; returns when it is ready. Never retried.

        Args:
            model: The model's name in the repository.
            config: Model configuration to use in place of its file, as a mapping or JSON text.
            files: Model files to use in place of the repository's, by path in the model's
                directory ("1/model.onnx").
            deadline_s: See the class; large models may need more than the default.

        Raises:
            TensorError: The config or a file cannot be sent.
            RpcError: The load failed; the message says why.
        """
        self._run(operations.load_model(model, config, files), deadline_s)

    def unload_model(
        self, model: str, *, unload_dependents: bool = False, deadline_s: float | None = None
    ) -> None:
        """Asks the server to unload a model; it may still finish requests. Never retried."""
        self._run(operations.unload_model(model, unload_dependents), deadline_s)

    # Shared memory

    @contextmanager
    def shared_memory(
        self, memory: RegionT, *, deadline_s: float | None = None
    ) -> Iterator[RegionT]:
        """Registers the memory for the length of a `with` block, for requests of any client."""
        self.register_shared_memory(memory, deadline_s=deadline_s)
        try:
            yield memory
        except BaseException:
            with suppress(PenstockError):  # what went wrong in the block is the news
                self._run(operations.forget(memory), deadline_s)
            raise
        self._run(operations.forget(memory), deadline_s)

    def register_shared_memory(
        self, memory: MemoryRegion, *, deadline_s: float | None = None
    ) -> None:
        """Tells the server of the memory, by its name; ALREADY_EXISTS where it knows one such."""
        self._run(operations.register_shared_memory(memory), deadline_s)

    def unregister_shared_memory(self, name: str = "", *, deadline_s: float | None = None) -> None:
        """Has the server forget a region, or all of everybody's with "". Requests go on."""
        self._run(operations.unregister_shared_memory(name), deadline_s)

    def shared_memory_status(
        self, name: str = "", *, deadline_s: float | None = None
    ) -> tuple[SharedMemoryRegion, ...]:
        """What is registered, by name; with a name that one, or NOT_FOUND."""
        return self._run(operations.shared_memory_status(name), deadline_s)

    def unregister_cuda_memory(self, name: str = "", *, deadline_s: float | None = None) -> None:
        """As `unregister_shared_memory`, of regions on GPUs."""
        self._run(operations.unregister_cuda_memory(name), deadline_s)

    def cuda_memory_status(
        self, name: str = "", *, deadline_s: float | None = None
    ) -> tuple[CudaMemoryRegion, ...]:
        """What is registered of GPUs' memory, by name; with a name that one, or NOT_FOUND."""
        return self._run(operations.cuda_memory_status(name), deadline_s)

    # How it is sent

    def _run(self, operation: Operation[T], deadline_s: float | None) -> T:
        plan = self._plan(operation, deadline_s)
        while True:
            call = self._next_attempt(operation, plan)
            try:
                answer = self._transport.unary(call, operation.request)
            except RpcError as error:
                wait_s = plan.wait_after(error)
            else:
                plan.succeeded()
                return operation.result(answer, call.trailing)
            self._sleep(wait_s)

    def _stream(
        self, requests: Iterable[InferRequest], raise_errors: bool, deadline_s: float | None
    ) -> Generator[Any, None, None]:
        call = self._stream_call(deadline_s, raise_errors=raise_errors)
        messages = StreamMessages()
        answers = self._transport.stream(call, map(messages.build, requests))
        with closing(answers):
            for answer in answers:
                item = messages.read(answer)
                if raise_errors and isinstance(item, StreamResponseError):
                    raise item
                yield item

    def _watch(self, job_id: str, deadline_s: float | None) -> Generator[Job, None, None]:
        call = self._open_call(JOB_METHODS["Watch"], deadline_s)
        answers = self._transport.stream(call, iter((watch_request(job_id),)))
        with closing(answers):
            yield from map(read_job, answers)
