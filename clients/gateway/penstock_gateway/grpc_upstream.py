"""One Open Inference gRPC server."""

from __future__ import annotations

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


class GrpcUpstream:
    """A channel to one address.

    Threading: confined to the event loop.
    Lifecycle: calls -> close.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        infer_timeout_s: float | None = None,
    ) -> None:
        """`infer_timeout_s`: deadline of ModelInfer; None = it ends when its client leaves."""
        self._infer_timeout_s = infer_timeout_s
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        self._calls: dict[str, Any] = {}

    async def unary(self, call: Call, request: bytes, *, timeout_s: float | None = None) -> bytes:
        """See `upstream.Upstream`; with `timeout_s` it is over by then."""
        send = self._callable(call.rpc, self._channel.unary_unary)
        if timeout_s is None and call.rpc == "ModelInfer":
            timeout_s = self._infer_timeout_s
        try:
            answer: bytes = await send(request, metadata=call.metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from None
        return answer

    async def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """See `upstream.Upstream`."""
        send = self._callable(call.rpc, self._channel.stream_stream)
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
        await self._channel.close(None)

    def _callable(self, rpc: str, make: Any) -> Any:
        found = self._calls.get(rpc)
        if found is None:
            found = self._calls[rpc] = make(METHODS[rpc].path)
        return found


def channel_credentials(
    root: bytes | None, key: bytes | None, chain: bytes | None
) -> grpc.ChannelCredentials:
    """For TLS; None = the system's roots, and no certificate of the gateway's own."""
    return grpc.ssl_channel_credentials(root, key, chain)


async def _one(request: bytes) -> AsyncGenerator[bytes, None]:
    yield request


def _translated(error: Any) -> UpstreamError:
    message = error.details() or ""
    code: int = error.code().value[0]
    trailing = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
    was_sent = error.code() is not grpc.StatusCode.UNAVAILABLE or not message.startswith(_NOT_SENT)
    return UpstreamError(code, message, trailing, was_sent)
