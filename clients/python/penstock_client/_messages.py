"""The message classes of the protocol and of Penstock's jobs, built at import from `_proto/`.

Each package lives in a descriptor pool of its own: the default pool takes each symbol once, and
other Open Inference clients (tritonclient) put the same `inference.*` names there, as a Penstock
server in this process does with its jobs. A message of this module and one of theirs therefore
never mix; they meet as bytes only.

Threading: constant after import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

__all__ = ["JOB_METHODS", "JOB_SERVICE", "METHODS", "SERVICE", "Method", "jobs_pb", "pb"]

SERVICE = "inference.GRPCInferenceService"
JOB_SERVICE = "penstock.v1.JobService"

_FOLDER = Path(__file__).parent / "_proto"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its name, its `:path`, and what turns messages into bytes and back."""

    name: str
    path: str
    request: type[Message]
    response: type[Message]
    is_client_streaming: bool = False


def _read_files(name: str) -> FileDescriptorSet:
    path = _FOLDER / name
    try:
        return FileDescriptorSet.FromString(path.read_bytes())
    except FileNotFoundError as error:
        raise ImportError(
            f"{path} is missing: the package is not built; run `python proto/generate.py`"
        ) from error


def _fill_pool(descriptors: FileDescriptorSet) -> DescriptorPool:
    pool = DescriptorPool()
    for file in descriptors.file:  # imports come first
        pool.Add(file)
    return pool


def _message_classes(descriptors: FileDescriptorSet, pool: DescriptorPool) -> SimpleNamespace:
    classes: dict[str, type[Message]] = {}
    for file in descriptors.file:
        for name, message in pool.FindFileByName(file.name).message_types_by_name.items():
            classes[name] = message_factory.GetMessageClass(message)
    return SimpleNamespace(**classes)


def _methods(pool: DescriptorPool, service: str) -> dict[str, Method]:
    return {
        method.name: Method(
            method.name,
            f"/{service}/{method.name}",
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.client_streaming,
        )
        for method in pool.FindServiceByName(service).methods
    }


_FILES = _read_files("inference.binpb")
_JOB_FILES = _read_files("jobs.binpb")
_POOL = _fill_pool(_FILES)
_JOB_POOL = _fill_pool(_JOB_FILES)

METHODS = _methods(_POOL, SERVICE)
"""The RPCs of inference by name."""

JOB_METHODS = _methods(_JOB_POOL, JOB_SERVICE)
"""The RPCs of jobs by name."""

if TYPE_CHECKING:
    from penstock_client._proto import inference_pb as pb
    from penstock_client._proto import jobs_pb
else:
    pb = _message_classes(_FILES, _POOL)
    jobs_pb = _message_classes(_JOB_FILES, _JOB_POOL)
