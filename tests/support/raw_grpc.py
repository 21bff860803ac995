"""A gRPC client of bytes: sends what no honest client would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from penstock import codec


class RawClient:
    """Calls the inference service with bytes."""

    def __init__(self, channel: Any, infer_service: str = codec.SERVICE_NAME) -> None:
        self.channel = channel
        self._infer_service = infer_service  # where ModelInfer and ModelStreamInfer are

    def unary(self, rpc: str, request: bytes = b"", **options: Any) -> Any:
        """The call object of a unary RPC; await it for the bytes of the response."""
        service = self._infer_service if rpc == "ModelInfer" else codec.SERVICE_NAME
        path = f"/{service}/{rpc}"
        return self.channel.unary_unary(path, None, None)(request, **options)

    def stream(self, requests: Any = None, **options: Any) -> Any:
        """The call object of ModelStreamInfer."""
        path = f"/{self._infer_service}/ModelStreamInfer"
        return self.channel.stream_stream(path, None, None)(requests, **options)


@asynccontextmanager
async def raw_client(
    address: str, infer_service: str = codec.SERVICE_NAME, **options: int
) -> AsyncIterator[RawClient]:
    """A client on a connection of its own; options are channel arguments with _ for ."""
    arguments = [("grpc.use_local_subchannel_pool", 1)]
    arguments += [(name.replace("__", "."), value) for name, value in options.items()]
    async with grpc.aio.insecure_channel(address, options=arguments) as channel:
        yield RawClient(channel, infer_service)


@asynccontextmanager
async def secure_client(
    address: str, credentials: grpc.ChannelCredentials
) -> AsyncIterator[RawClient]:
    """The same over TLS."""
    arguments = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options=arguments) as channel:
        yield RawClient(channel, codec.SERVICE_NAME)
