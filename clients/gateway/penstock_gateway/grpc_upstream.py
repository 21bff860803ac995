"""One Open Inference gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc

from penstock_gateway._messages import METHODS
from penstock_gateway.upstream import Call, UpstreamError

__all__ = ["GrpcUpstream", "channel_credentials"]

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A replica that comes up is to be found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Only what no server has seen is sent again by gRPC; the rest is the pool's decision, and no
    # DNS record's.
    ("grpc.service_config_disable_resolution", 1),
    # A host that is gone without a word is noticed under the calls it has: with keepalive the
    # kernel waits this long (keepalive_timeout) for what was sent, and the probes send every
    # second. Pings themselves come no more often than any gRPC server must bear (5 minutes).
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),
)
_NOT_SENT = ("failed to connect to all addresses", "DNS resolution failed")
"""How gRPC's texts begin where no connection was made, and so nothing sent."""


class _Line:
    """A channel, and how many calls it has. Retired, it is closed after the last of them."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        self._calls: dict[str, Any] = {}
        self._count = 0
        self._is_retired = False
        self.unary_unary = self._channel.unary_unary
        self.stream_stream = self._channel.stream_stream
        self.ended = asyncio.Event()

    def __enter__(self) -> _Line:
        self._count += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self._count -= 1
        self._look()

    def retire(self) -> None:
        self._is_retired = True
        self._look()

    def callable(self, rpc: str, make: Any) -> Any:
        found = self._calls.get(rpc)
        if found is None:
            found = self._calls[rpc] = make(METHODS[rpc].path)
        return found

    async def close(self) -> None:
        await self._channel.close(None)

    def _look(self) -> None:
        if self._is_retired and self._count == 0:
            self.ended.set()


class GrpcUpstream:
    """A channel to one address.

    Threading: confined to the event loop.
    Lifecycle: calls and renewals -> close.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        infer_timeout_s: float | None = None,
    ) -> None:
        """`infer_timeout_s`: deadline of ModelInfer; None = it ends when its client leaves."""
        self._target = target
        self._infer_timeout_s = infer_timeout_s
        self._line = _Line(target, credentials)
        self._retiring: set[asyncio.Task[None]] = set()

    def renew(self, credentials: grpc.ChannelCredentials) -> None:
        """Calls from now on are on a new channel; those under way end on theirs."""
        before, self._line = self._line, _Line(self._target, credentials)
        task = asyncio.get_running_loop().create_task(_close_at_its_end(before))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        before.retire()

    async def unary(self, call: Call, request: bytes, *, timeout_s: float | None = None) -> bytes:
        """See `upstream.Upstream`; with `timeout_s` it is over by then."""
        if timeout_s is None and call.rpc == "ModelInfer":
            timeout_s = self._infer_timeout_s
        with self._line as line:
            send = line.callable(call.rpc, line.unary_unary)
            try:
                sent = send(request, metadata=call.metadata, timeout=timeout_s)
                answer: bytes = await sent
                if call.trailing is not None:
                    call.trailing.update(_trailing(await sent.trailing_metadata()))
            except grpc.aio.AioRpcError as error:
                raise _translated(error) from None
        return answer

    async def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """See `upstream.Upstream`."""
        with self._line as line:
            send = line.callable(call.rpc, line.stream_stream)
            answers = send(_one(request), metadata=call.metadata)
            try:
                async for answer in answers:
                    yield answer
            except grpc.aio.AioRpcError as error:
                raise _translated(error) from None
            finally:
                answers.cancel()

    async def close(self) -> None:
        """Cancels what is under way."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._line.close()


async def _close_at_its_end(line: _Line) -> None:
    try:
        await line.ended.wait()
    finally:
        await line.close()


def channel_credentials(
    root: bytes | None, key: bytes | None, chain: bytes | None
) -> grpc.ChannelCredentials:
    """For TLS; None = the system's roots, and no certificate of the gateway's own."""
    return grpc.ssl_channel_credentials(root, key, chain)


async def _one(request: bytes) -> AsyncGenerator[bytes, None]:
    yield request


def _trailing(metadata: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in metadata or ()}


def _translated(error: Any) -> UpstreamError:
    message = error.details() or ""
    code: int = error.code().value[0]
    trailing = _trailing(error.trailing_metadata())
    was_sent = error.code() is not grpc.StatusCode.UNAVAILABLE or not message.startswith(_NOT_SENT)
    return UpstreamError(code, message, trailing, was_sent)
