"""What the gateway calls: one Open Inference server, or many behind a pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["PUSHBACK", "Call", "Code", "Upstream", "UpstreamError", "peer_of"]

PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata that says when to try again."""

Metadata = tuple[tuple[str, str], ...]


class Code:
    """The gRPC status codes that are told apart here, with their numbers on the wire."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC of `inference.GRPCInferenceService`.

    Attributes:
        rpc: its name, such as "ModelInfer".
        metadata: what goes along: the caller's credentials above all.
        peer: the HTTP client, as gRPC writes addresses ("ipv4:10.0.0.1:4711"), "" = unknown.
        may_repeat: whether a server that refused it may be followed by another one.
        changes_server: it is for every replica, such as a load.
        affinity: calls of one value go to one replica; "" = to any.
        starts_sequence: the first of them: it may go to another one than the last time.
        trailing: filled with the trailing metadata of an answer to one message; None = not wanted.
    """

    rpc: str
    metadata: Metadata = ()
    peer: str = ""
    may_repeat: bool = True
    changes_server: bool = False
    affinity: str = ""
    starts_sequence: bool = False
    trailing: dict[str, str] | None = field(default=None, compare=False)


@dataclass(eq=False)
class UpstreamError(Exception):
    """The RPC did not end OK.

    Attributes:
        code: gRPC status code.
        message: the server's words.
        trailing: the call's trailing metadata.
        was_sent: whether the request may have reached a server.
    """

    code: int
    message: str
    trailing: Mapping[str, str] = field(default_factory=dict)
    was_sent: bool = True

    def __str__(self) -> str:
        """The server's words."""
        return self.message


class Upstream(Protocol):
    """Messages are bytes. Threading: confined to the event loop."""

    @property
    def is_ready(self) -> bool:
        """What a readiness probe of the gateway is told."""

    async def authorize(self, call: Call) -> None:
        """Raises UpstreamError where it is known without asking that the call may not be made.

        Asked before a body is read; the call is admitted, or not, when it is made.
        """

    async def unary(self, call: Call, request: bytes) -> bytes:
        """One message for one; raises UpstreamError. Cancelling it cancels the call."""

    def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """The answers to one message of a stream; closing the generator cancels the call."""


def peer_of(client: tuple[str, int] | None) -> str:
    """A client's address as gRPC writes it; "" where there is none."""
    if client is None:
        return ""
    host, port = client
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
