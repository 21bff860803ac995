"""Server reflection, v1alpha and v1.

The `inference` messages live in a descriptor pool of their own (see `penstock._messages`), so
reflection gets a pool that holds them beside the services of the default one.
"""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from penstock import codec

__all__ = ["register_reflection"]

_ALPHA = "grpc.reflection.v1alpha.ServerReflection"
# The messages of v1 are those of v1alpha, byte by byte; only the service's name has changed.
_STABLE = "grpc.reflection.v1.ServerReflection"


def register_reflection(server: Any) -> None:
    """Adds both versions of the service to a server of either transport."""
    names = (codec.SERVICE_NAME, "grpc.health.v1.Health", _ALPHA)
    servicer = ReflectionServicer(names, pool=_pool())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (_ALPHA, _STABLE):
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        server.add_registered_method_handlers(service, methods)


def _pool() -> Any:
    pool = type(codec.POOL)()
    files = [file.SerializeToString() for file in codec.DESCRIPTORS.file]
    files += [module.DESCRIPTOR.serialized_pb for module in (health_pb2, reflection_pb2)]
    for serialized in files:
        pool.AddSerializedFile(serialized)
    return pool
