"""The RPCs that register memory of clients on the server's own machine: the system's and GPUs'.

Without a GPU it is as on Triton without one: none of CUDA's is ever listed, to unregister all is no
error, and to register some is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from penstock import codec
from penstock.errors import UnavailableError

__all__ = ["SharedMemoryControl", "SharedMemoryHandlers"]


class SharedMemoryControl(Protocol):
    """What of `penstock.core.Core` has to do with shared memory.

    Every call raises UnimplementedError unless the operator has allowed it.
    """

    async def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Gives a part of the object `key` a name."""

    async def unregister_region(self, name: str) -> None:
        """Forgets a name, or with "" all."""

    def regions(self, name: str) -> Sequence[tuple[str, str, int, int]]:
        """(name, key, offset, byte_size) of all, or of one."""

    async def check_cuda_memory(self) -> None:
        """Raises UnavailableError where there is no GPU to use."""

    async def register_cuda_region(
        self, name: str, handle: bytes, device_id: int, byte_size: int
    ) -> None:
        """Gives memory of a GPU a name."""

    async def unregister_cuda_region(self, name: str) -> None:
        """Forgets a name, or with "" all, of GPUs' memory."""

    def cuda_regions(self, name: str) -> Sequence[tuple[str, int, int]]:
        """(name, device_id, byte_size) of all on GPUs, or of one."""


class SharedMemoryHandlers:
    """Status, Register and Unregister, of the system's shared memory and of CUDA's.

    Threading: confined to the event loop.
    Ownership: borrows the core.
    """

    def __init__(self, memory: SharedMemoryControl, *, is_allowed: bool) -> None:
        self._memory = memory
        self._is_allowed = is_allowed

    async def extensions(self) -> tuple[str, ...]:
        """Of the protocol, to be told in ServerMetadata. The first call looks for a GPU."""
        if not self._is_allowed:
            return ()
        try:
            await self._memory.check_cuda_memory()
        except UnavailableError:
            return ("system_shared_memory",)
        return ("system_shared_memory", "cuda_shared_memory")

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
        """What is registered of GPUs' memory."""
        name = codec.parse_region_name("CudaSharedMemoryStatus", request)
        regions = self._memory.cuda_regions(name)
        return codec.encode_cuda_regions(codec.CudaRegion(*each) for each in regions)

    async def cuda_register(self, request: bytes) -> bytes:
        """Gives memory of a GPU, which a client exports, a name for requests to use."""
        handle, region = codec.parse_cuda_register_request(request)
        await self._memory.register_cuda_region(
            region.name, handle, region.device_id, region.byte_size
        )
        return codec.encode_done("CudaSharedMemoryRegister")

    async def cuda_unregister(self, request: bytes) -> bytes:
        """Forgets a region, or all; requests that use it go on."""
        name = codec.parse_region_name("CudaSharedMemoryUnregister", request)
        await self._memory.unregister_cuda_region(name)
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
