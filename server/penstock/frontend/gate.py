"""The gate: who makes a call, asked of the core before anything is done for it.

The core decides (csrc/engine/access.h). What is here brings it the call's metadata, has a token
verified that the core does not know, and covers the services that others wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from penstock.core import Caller
from penstock.frontend.status import abort

__all__ = ["RPC_GROUPS", "CoreAccess", "Gate", "Verifier"]

# Triton's groups. Reflection tells what there is to call: metadata.
RPC_GROUPS = {
    "ServerLive": "health",
    "ServerReady": "health",
    "ModelReady": "health",
    "ServerMetadata": "metadata",
    "ModelMetadata": "metadata",
    "ModelInfer": "inference",
    "ModelStreamInfer": "inference",
    "ModelConfig": "model-config",
    "ModelStatistics": "statistics",
    "RepositoryIndex": "model-repository",
    "RepositoryModelLoad": "model-repository",
    "RepositoryModelUnload": "model-repository",
    "SystemSharedMemoryStatus": "shared-memory",
    "SystemSharedMemoryRegister": "shared-memory",
    "SystemSharedMemoryUnregister": "shared-memory",
    "CudaSharedMemoryStatus": "shared-memory",
    "CudaSharedMemoryRegister": "shared-memory",
    "CudaSharedMemoryUnregister": "shared-memory",
    "TraceSetting": "trace",
    "LogSettings": "logging",
}


# The keys may change while a call waits for its verification, which then counts no more.
_MAX_VERIFICATIONS = 3


class CoreAccess(Protocol):
    """What of `penstock.core.Access` the gate needs."""

    @property
    def is_active(self) -> bool:
        """Whether anything is asked of callers."""

    def identify(self, metadata: Sequence[tuple[str, str | bytes]], connection: str) -> Caller:
        """Reads a call's metadata."""

    def needs_verification(self, group: str, caller: Caller) -> bool:
        """Whether the caller's token must be verified before it can call the group."""

    def authorize(self, group: str, caller: Caller | None = None) -> None:
        """Raises CoreError when the caller may not call the group."""

    def admit(self, group: str, size_bytes: int, caller: Caller | None = None) -> None:
        """Raises CoreError when the message does not come in."""


@runtime_checkable
class _Named(Protocol):
    """A context that tells its connection from all others: the native transport's."""

    def connection(self) -> str:
        """Its name; gRPC's own contexts have only the peer, "unix:" for all of a socket."""


class Verifier(Protocol):
    """Verifies tokens that the core does not know."""

    async def verify(self, caller: Caller) -> None:
        """Returns when the core knows the outcome."""


class Gate:
    """Asks the core whether a call may come in.

    Threading: confined to the event loop.
    Ownership: borrows everything.
    Cost: none where no access policy is set; metadata is not read then.
    """

    def __init__(self, access: CoreAccess, verifier: Verifier | None = None) -> None:
        self._access = access
        self._verifier = verifier
        self.is_active = access.is_active

    async def caller(self, group: str, context: Any) -> Caller | None:
        """Who calls the group; None where nobody wants to know."""
        if not self.is_active:
            return None
        connection = context.connection() if isinstance(context, _Named) else context.peer()
        caller = self._access.identify(context.invocation_metadata() or (), connection)
        await self.recognise(group, caller)
        return caller

    async def recognise(self, group: str, caller: Caller | None) -> None:
        """Has the caller's token verified where the core does not know it, or no longer."""
        if self._verifier is None or caller is None:
            return
        for _ in range(_MAX_VERIFICATIONS):
            if not self._access.needs_verification(group, caller):
                return
            await self._verifier.verify(caller)

    async def authorize(self, group: str, context: Any) -> Caller | None:
        """Who calls, if they may call the group at all: the start of a stream.

        Raises:
            CoreError: they may not.
        """
        caller = await self.caller(group, context)
        self._access.authorize(group, caller)
        return caller

    async def let_in(self, group: str, size_bytes: int, context: Any, rpc: str) -> None:
        """`admit` for services that others wrote: ends the call where it does not come in."""
        try:
            await self.admit(group, size_bytes, context)
        except Exception as error:
            await abort(context, error, rpc)

    async def admit(self, group: str, size_bytes: int, context: Any) -> None:
        """Lets in the one message of a call.

        Raises:
            CoreError: it does not come in.
        """
        caller = await self.caller(group, context) if self.is_active else None
        self._access.admit(group, size_bytes, caller)
