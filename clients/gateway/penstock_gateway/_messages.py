"""The protocol's message classes, built at import from `_proto/inference.binpb`.

They live in a descriptor pool of their own: the default pool takes each symbol once, and other
Open Inference clients (tritonclient) put the same `inference.*` names there. A message of this
module and one of theirs therefore never mix; they meet as bytes only.

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

__all__ = ["METHODS", "SERVICE", "Method", "pb"]

SERVICE = "inference.GRPCInferenceService"

_SET_PATH = Path(__file__).parent / "_proto" / "inference.binpb"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its name, its `:path`, and what turns messages into bytes and back."""

    name: str
    request: type[Message]
    response: type[Message]

    @property
    def path(self) -> str:
        """The `:path` on the wire."""
        return f"/{SERVICE}/{self.name}"


def _load_pool() -> tuple[DescriptorPool, list[str]]:
    try:
        descriptors = FileDescriptorSet.FromString(_SET_PATH.read_bytes())
    except FileNotFoundError as error:
        raise ImportError(
            f"{_SET_PATH} is missing: the package is not built; run `python proto/generate.py`"
        ) from error
    pool = DescriptorPool()
    for file in descriptors.file:  # imports come first
        pool.Add(file)
    return pool, [file.name for file in descriptors.file]


_POOL, _FILES = _load_pool()


def _message_classes() -> SimpleNamespace:
    classes: dict[str, type[Message]] = {}
    for file in _FILES:
        for name, message in _POOL.FindFileByName(file).message_types_by_name.items():
            classes[name] = message_factory.GetMessageClass(message)
    return SimpleNamespace(**classes)


METHODS: dict[str, Method] = {
    method.name: Method(
        method.name,
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
    )
    for method in _POOL.FindServiceByName(SERVICE).methods
}
"""The RPCs of the service by name."""

if TYPE_CHECKING:
    from penstock_gateway._proto import inference_pb as pb
else:
    pb = _message_classes()
