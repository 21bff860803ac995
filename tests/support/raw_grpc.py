"""A gRPC client of bytes: sends what no honest client would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from penstock import codec


class RawClient:
    """Calls the inference service with bytes."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def unary(self, rpc: str, request: bytes = b"", **options: Any) -> Any:
        """The call object of a unary RPC; await it for the bytes of the response."""
        path = f"/{codec.SERVICE_NAME}/{rpc}"
        return self.channel.unary_unary(path, None, None)(request, **options)

    def stream(self, requests: Any = None, **options: Any) -> Any:
        """The call object of ModelStreamInfer."""
        path = f"/{codec.SERVICE_NAME}/ModelStreamInfer"
        return self.channel.stream_stream(path, None, None)(requests, **options)


@asynccontextmanager
async def raw_client(address: str, **options: int) -> AsyncIterator[RawClient]:
    """A client on a connection of its own; options are channel arguments with _ for ."""
    arguments = [("grpc.use_local_subchannel_pool", 1)]
    arguments += [(name.replace("__", "."), value) for name, value in options.items()]
    async with grpc.aio.insecure_channel(address, options=arguments) as channel:
        yield RawClient(channel)
