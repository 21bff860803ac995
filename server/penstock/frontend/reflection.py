"""Server reflection, v1alpha and v1.

The `inference` messages live in a descriptor pool of their own (see `penstock._messages`), so
reflection gets a pool that holds them beside the services of the default one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from penstock import codec
from penstock.frontend.gate import Gate
from penstock.frontend.readiness import Readiness
from penstock.frontend.status import abort

__all__ = ["register_reflection"]

_ALPHA = "grpc.reflection.v1alpha.ServerReflection"
# The messages of v1 are those of v1alpha, byte by byte; only the service's name has changed.
_STABLE = "grpc.reflection.v1.ServerReflection"


def register_reflection(
    server: Any, readiness: Readiness, gate: Gate, services: Sequence[str] = ()
) -> None:
    """Adds both versions of the service to a server of either transport.

    Args:
        server: of either transport.
        readiness: tells when it closes.
        gate: asked before each answer.
        services: names of further services that there are.
    """
    names = (codec.SERVICE_NAME, "grpc.health.v1.Health", _ALPHA, _STABLE, *services)
    servicer = ReflectionServicer(names, pool=_pool())

    async def answer(requests: AsyncIterator[Any], context: Any) -> None:
        async def admitted() -> AsyncIterator[Any]:
            async for request in requests:
                await gate.let_in("metadata", request.ByteSize(), context, "ServerReflectionInfo")
                yield request

        try:
            await gate.authorize("metadata", context)
        except Exception as error:
            await abort(context, error, "ServerReflectionInfo")
        answers = servicer.ServerReflectionInfo(admitted(), context)
        if not await _answer_until_closing(answers, context, readiness):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    handler = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (_ALPHA, _STABLE):
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        server.add_registered_method_handlers(service, methods)


async def _answer_until_closing(
    answers: AsyncIterator[Any], context: Any, readiness: Readiness
) -> bool:
    """False if the server closed first: tools keep the stream open, and a drain must not wait."""
    closing = asyncio.create_task(readiness.wait_closing())
    try:
        while True:
            reply = asyncio.ensure_future(anext(answers, None))
            await asyncio.wait({reply, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                reply.cancel()
                return False
            message = reply.result()
            if message is None:
                return True
            await context.write(message)
    finally:
        closing.cancel()


def _pool() -> Any:
    pool = type(codec.POOL)()
    ours = (*codec.DESCRIPTORS.file, *codec.JOBS_DESCRIPTORS.file)
    files = [file.SerializeToString() for file in ours]
    files += [module.DESCRIPTOR.serialized_pb for module in (health_pb2, reflection_pb2)]
    for serialized in files:
        pool.AddSerializedFile(serialized)
    return pool
