"""The seam between the clients and the network.

A transport sends messages and brings answers; it knows nothing of arrays, retries or deadlines
beyond the one it is given. It fails with `PenstockError`s and nothing else, and a call that the
other side ended badly with the `RpcError` of its status code. There is one over gRPC here and
one over a function (`_mock_transport.MockTransport`, for tests without a socket), each in a
blocking and an asyncio form.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from penstock_client._messages import Method
from penstock_client.errors import (
    CancelledError,
    ProtocolError,
    RpcError,
    TensorError,
    error_class,
)

Headers = tuple[tuple[str, str | bytes], ...]
ChannelOptions = Sequence[tuple[str, Any]]

MAX_MESSAGE_BYTES = 2**31 - 1  # protobuf's own limit

_CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Ours is the only retry: two layers would multiply attempts and hide the pushback.
    ("grpc.enable_retries", 0),
    # While gRPC waits to reconnect (1 s by default) every retry would fail without being sent.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC as a transport sees it.

    Attributes:
        method: Which RPC, and its message classes.
        timeout_s: Seconds until it must be over, None for no limit.
        headers: The metadata to send along.
        trailing: Where a unary call's trailing metadata goes, text only; None: nobody wants it.
    """

    method: Method
    timeout_s: float | None
    headers: Headers = ()
    trailing: dict[str, str] | None = field(default=None, compare=False)


class Transport(Protocol):
    """Blocking. Threading: thread-safe. Lifecycle: any calls, then `close` once."""

    def unary(self, call: Call, request: Message) -> Message:
        """Sends one message and waits for its answer; raises RpcError."""
        ...

    def stream(self, call: Call, requests: Iterator[Message]) -> Generator[Message, None, None]:
        """Sends messages while yielding answers; closing the generator cancels the call.

        Where the method takes one message, so many are there.
        """
        ...

    def close(self) -> None:
        """Lets go of the connection; calls in flight are cancelled."""
        ...


class AsyncTransport(Protocol):
    """Asyncio. Threading: confined to the event loop of its first call."""

    async def unary(self, call: Call, request: Message) -> Message:
        """Sends one message and waits for its answer; raises RpcError."""
        ...

    def stream(self, call: Call, requests: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
        """Sends messages while yielding answers; closing the generator cancels the call.

        Where the method takes one message, so many are there.
        """
        ...

    async def close(self) -> None:
        """Lets go of the connection; calls in flight are cancelled."""
        ...


class GrpcTransport:
    """`Transport` over one gRPC channel. The connection is made by the first call."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: ChannelOptions = (),
    ) -> None:
        """`options` are gRPC channel arguments and win over this client's own."""
        merged = _merge_options(options)
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=merged)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=merged)
        self._is_closed = False
        self._callables: dict[str, Any] = {}

    def unary(self, call: Call, request: Message) -> Message:
        """See `Transport`."""
        send = self._callable(call.method, self._channel.unary_unary)
        data = _serialize(request)
        try:
            with self._refused_when_closed():
                answer, ended = send.with_call(data, timeout=call.timeout_s, metadata=call.headers)
        except grpc.RpcError as error:
            raise _from_grpc(error) from None
        if call.trailing is not None:
            call.trailing.update(_texts(ended.trailing_metadata()))
        return _parse(call.method, answer)

    def stream(self, call: Call, requests: Iterator[Message]) -> Generator[Message, None, None]:
        """See `Transport`."""
        feed = _Feed()
        messages: Any
        if call.method.is_client_streaming:
            send = self._callable(call.method, self._channel.stream_stream)
            messages = feed.drain(requests)
        else:
            send = self._callable(call.method, self._channel.unary_stream)
            messages = _serialize(next(requests))
        with self._refused_when_closed():
            answers = send(messages, timeout=call.timeout_s, metadata=call.headers)
        try:
            for answer in answers:
                yield _parse(call.method, answer)
            feed.raise_failure()
        except grpc.RpcError as error:
            raise _from_grpc(error) from None
        finally:
            answers.cancel()

    def close(self) -> None:
        """See `Transport`."""
        self._is_closed = True
        self._channel.close()

    @contextmanager
    def _refused_when_closed(self) -> Iterator[None]:
        """Another thread may close the channel after a call has looked: a bare ValueError."""
        try:
            yield
        except ValueError:
            if not self._is_closed:
                raise
            raise CancelledError("the client was closed before the call") from None

    def _callable(self, method: Method, make: Callable[..., Any]) -> Any:
        # Two threads may both make one: they are alike, and the last one stays.
        found = self._callables.get(method.path)
        if found is None:
            found = make(method.path)
            self._callables[method.path] = found
        return found


class AsyncGrpcTransport:
    """`AsyncTransport` over one gRPC channel, made on the loop of the first call."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: ChannelOptions = (),
    ) -> None:
        """`options` are gRPC channel arguments and win over this client's own."""
        self._target = target
        self._credentials = credentials
        self._options = _merge_options(options)
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False
        self._callables: dict[str, Any] = {}

    async def unary(self, call: Call, request: Message) -> Message:
        """See `AsyncTransport`."""
        send = self._callable(call.method, "unary_unary")
        with self._translated_errors():
            sent = send(_serialize(request), timeout=call.timeout_s, metadata=call.headers)
            answer = await sent
            if call.trailing is not None:
                call.trailing.update(_texts(await sent.trailing_metadata()))
        return _parse(call.method, answer)

    async def stream(
        self, call: Call, requests: AsyncIterator[Message]
    ) -> AsyncGenerator[Message, None]:
        """See `AsyncTransport`."""
        feed = _Feed()
        messages: Any
        if call.method.is_client_streaming:
            send = self._callable(call.method, "stream_stream")
            messages = feed.drain_async(requests)
        else:
            # As a stream of one, a call that is refused at once would end INTERNAL at times.
            send = self._callable(call.method, "unary_stream")
            messages = _serialize(await anext(requests))
        answers = send(messages, timeout=call.timeout_s, metadata=call.headers)
        try:
            with self._translated_errors():
                async for answer in answers:
                    yield _parse(call.method, answer)
            feed.raise_failure()
        finally:
            answers.cancel()

    async def close(self) -> None:
        """See `AsyncTransport`."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close(None)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """GRPC's exceptions as ours.

        Closing a channel makes gRPC raise asyncio's CancelledError in whoever awaits a call,
        though nobody cancelled that task. Let through, it would end the task silently.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise _from_grpc(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_closed or (task is not None and task.cancelling()):
                raise
            raise CancelledError("the client was closed during the call") from None

    def _callable(self, method: Method, kind: str) -> Any:
        found = self._callables.get(method.path)
        if found is None:
            make = getattr(self._open_channel(), kind)
            found = make(method.path)
            self._callables[method.path] = found
        return found

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
            else:
                self._channel = grpc.aio.secure_channel(
                    self._target, self._credentials, options=self._options
                )
        return self._channel


class _Feed:
    """The requests of a stream as bytes, kept from failing inside gRPC.

    gRPC logs what a request iterator raises and cancels the call, so the caller would never see
    it. Here the exception ends the requests (the server then finishes those it has) and is kept
    for whoever reads the answers.

    Threading: blocking gRPC drains on a thread of its own; `raise_failure` is for after the
    answers have ended, and the end of the requests precedes that.
    """

    def __init__(self) -> None:
        self._failure: Exception | None = None

    def drain(self, requests: Iterator[Message]) -> Iterator[bytes]:
        try:
            for request in requests:
                yield _serialize(request)
        except Exception as error:
            self._failure = error

    async def drain_async(self, requests: AsyncIterator[Message]) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield _serialize(request)
        except Exception as error:
            self._failure = error

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _merge_options(options: ChannelOptions) -> list[tuple[str, Any]]:
    return list({**dict(_CHANNEL_OPTIONS), **dict(options)}.items())


def _serialize(message: Message) -> bytes:
    data = message.SerializeToString()
    if len(data) > MAX_MESSAGE_BYTES:
        raise TensorError(
            f"the request has {len(data)} bytes, over the {MAX_MESSAGE_BYTES} allowed"
        )
    return data


def _parse(method: Method, data: bytes) -> Message:
    try:
        return method.response.FromString(data)
    except DecodeError as error:
        raise ProtocolError(
            f"{method.name}: the answer is no {method.response.__name__}"
        ) from error


def _texts(metadata: Any) -> dict[str, str]:
    return {str(key): value for key, value in metadata or () if isinstance(value, str)}


def _from_grpc(error: Any) -> RpcError:
    details = {str(key): value for key, value in error.trailing_metadata() or ()}
    return error_class(error.code())(error.details() or "", details=details)
