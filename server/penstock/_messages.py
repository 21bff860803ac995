"""The `inference` message classes and the service's methods, built from proto/ at import.

The classes live in a descriptor pool of their own. The default pool refuses a second definition of
one symbol, so classes registered there would make `import tritonclient.grpc` (which registers the
same `inference.*` names) fail in this process, or fail themselves. For the same reason a message
of this module and one of tritonclient's never mix; they meet as bytes only.

Only `penstock.codec` imports this module.

Threading: everything here is constant after import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

__all__ = [
    "DESCRIPTORS",
    "JOBS_DESCRIPTORS",
    "JOBS_SERVICE_NAME",
    "METHODS",
    "POOL",
    "SCALER_SERVICE_NAME",
    "SERVICE_NAME",
    "Method",
    "jobs_pb",
    "pb",
    "scaler_pb",
]

SERVICE_NAME = "inference.GRPCInferenceService"
JOBS_SERVICE_NAME = "penstock.v1.JobService"
SCALER_SERVICE_NAME = "externalscaler.ExternalScaler"

_FOLDER = Path(__file__).parent / "_proto"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of the service, as a server needs it to register a handler."""

    name: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool

    @property
    def path(self) -> str:
        """The `:path` of the RPC on the wire."""
        return f"/{SERVICE_NAME}/{self.name}"


def _read_descriptors(name: str) -> FileDescriptorSet:
    path = _FOLDER / name
    try:
        return FileDescriptorSet.FromString(path.read_bytes())
    except FileNotFoundError as error:
        raise ImportError(
            f"{path} is missing: the package is not built; run `python proto/generate.py`"
        ) from error


def _fill_pool(descriptors: FileDescriptorSet, pool: DescriptorPool) -> DescriptorPool:
    for file in descriptors.file:  # protoc lists a file after its imports
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _build_namespace(descriptors: FileDescriptorSet, pool: DescriptorPool) -> SimpleNamespace:
    """Top-level messages, enums and enum values by name: what inference_pb.pyi describes."""
    names: dict[str, object] = {}
    for file in descriptors.file:
        found = pool.FindFileByName(file.name)
        for name, message in found.message_types_by_name.items():
            names[name] = message_factory.GetMessageClass(message)
        for name, enum in found.enum_types_by_name.items():
            names[name] = EnumTypeWrapper(enum)
            names.update((value.name, value.number) for value in enum.values)
    return SimpleNamespace(**names)


def _as_method(method: MethodDescriptor) -> Method:
    return Method(
        name=method.name,
        request=message_factory.GetMessageClass(method.input_type),
        response=message_factory.GetMessageClass(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
    )


def _build_methods(pool: DescriptorPool) -> Mapping[str, Method]:
    service = pool.FindServiceByName(SERVICE_NAME)
    return MappingProxyType({method.name: _as_method(method) for method in service.methods})


DESCRIPTORS: FileDescriptorSet = _read_descriptors("inference.binpb")
"""The compiled files, imports first; for server reflection."""

POOL: DescriptorPool = _fill_pool(DESCRIPTORS, DescriptorPool())
"""The private pool; server reflection is given it in place of the default one."""

METHODS: Mapping[str, Method] = _build_methods(POOL)
"""The RPCs of the service by name, in the order of the proto file."""

JOBS_DESCRIPTORS: FileDescriptorSet = _read_descriptors("jobs.binpb")
"""Penstock's own services; nobody else has their names, so they are in the default pool."""

_SCALER_DESCRIPTORS: FileDescriptorSet = _read_descriptors("externalscaler.binpb")

if TYPE_CHECKING:
    from penstock._proto import externalscaler_pb as scaler_pb
    from penstock._proto import inference_pb as pb
    from penstock._proto import jobs_pb
else:
    jobs_pb = _build_namespace(
        JOBS_DESCRIPTORS, _fill_pool(JOBS_DESCRIPTORS, descriptor_pool.Default())
    )
    pb = _build_namespace(DESCRIPTORS, POOL)
    scaler_pb = _build_namespace(
        _SCALER_DESCRIPTORS, _fill_pool(_SCALER_DESCRIPTORS, DescriptorPool())
    )
