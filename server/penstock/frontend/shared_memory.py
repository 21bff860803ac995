"""The RPCs that register shared memory of clients on the server's own machine.

Of CUDA's there is none here: as on Triton without a GPU, none is ever listed, to unregister all is
no error, and to register some is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from penstock import codec
from penstock.errors import InvalidArgumentError, NotFoundError

__all__ = ["SharedMemoryControl", "SharedMemoryHandlers"]


class SharedMemoryControl(Protocol):
    """What of `penstock.core.Core` has to do with shared memory.

    Every call raises UnimplementedError unless the operator has allowed it.
    """

    def check_shared_memory(self) -> None:
        """Does nothing where it is allowed."""

    async def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Gives a part of the object `key` a name."""

    async def unregister_region(self, name: str) -> None:
        """Forgets a name, or with "" all."""

    def regions(self, name: str) -> Sequence[tuple[str, str, int, int]]:
        """(name, key, offset, byte_size) of all, or of one."""


class SharedMemoryHandlers:
    """Status, Register and Unregister, of the system's shared memory and of CUDA's.

    Threading: confined to the event loop.
    Ownership: borrows the core.
    """

    def __init__(self, memory: SharedMemoryControl, *, is_allowed: bool) -> None:
        self._memory = memory
        self.extensions = ("system_shared_memory",) if is_allowed else ()
        """Of the protocol, to be told in ServerMetadata."""

    async def status(self, request: bytes) -> bytes:
        """What is registered."""
        name = codec.parse_region_name("SystemSharedMemoryStatus", request)
        regions = self._memory.regions(name)
        return codec.encode_regions(codec.SharedRegion(*each) for each in regions)

    async def register(self, request: bytes) -> bytes:
        """Gives a part of an object of shared memory a name for requests to use."""
        region = codec.parse_register_request(request)
        await self._memory.register_region(region.name, region.key, region.offset, region.byte_size)
        return codec.encode_done("SystemSharedMemoryRegister")

    async def unregister(self, request: bytes) -> bytes:
        """Forgets a region, or all; requests that use it go on."""
        name = codec.parse_region_name("SystemSharedMemoryUnregister", request)
        await self._memory.unregister_region(name)
        return codec.encode_done("SystemSharedMemoryUnregister")

    async def cuda_status(self, request: bytes) -> bytes:
        """None."""
        self._memory.check_shared_memory()
        name = codec.parse_region_name("CudaSharedMemoryStatus", request)
        if name:
            raise NotFoundError(f"Unable to find cuda shared memory region: '{name}'")
        return codec.encode_done("CudaSharedMemoryStatus")

    async def cuda_register(self, request: bytes) -> bytes:
        """Refused: there is no GPU in this process."""
        self._memory.check_shared_memory()
        name = codec.parse_region_name("CudaSharedMemoryRegister", request)
        raise InvalidArgumentError(
            f"failed to register CUDA shared memory region: '{name}', GPUs not supported"
        )

    async def cuda_unregister(self, request: bytes) -> bytes:
        """Nothing to do, and no error: clients do it at their start and end."""
        self._memory.check_shared_memory()
        codec.parse_region_name("CudaSharedMemoryUnregister", request)
        return codec.encode_done("CudaSharedMemoryUnregister")

    def by_rpc(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """The handlers by RPC name."""
        return {
            "SystemSharedMemoryStatus": self.status,
            "SystemSharedMemoryRegister": self.register,
            "SystemSharedMemoryUnregister": self.unregister,
            "CudaSharedMemoryStatus": self.cuda_status,
            "CudaSharedMemoryRegister": self.cuda_register,
            "CudaSharedMemoryUnregister": self.cuda_unregister,
        }
