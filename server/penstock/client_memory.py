"""Memory of clients that the core reads tensors from and writes them to, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.core import Core
from penstock.threads import Threads

__all__ = ["ClientMemory"]

_GPU_THREADS = 4


class ClientMemory:
    """The regions of one core, of the system's shared memory and of GPUs.

    Every call raises UnimplementedError unless the operator has allowed clients this. What blocks
    is run off the event loop: what a GPU's driver may hold up on threads that nothing else uses.

    Threading: confined to the event loop.
    Ownership: borrows the core; owns the threads.
    Lifecycle: constructed -> (calls)* -> close.
    """

    def __init__(self, core: Core) -> None:
        self._regions = core.engine.shared_memory
        self._run = core.run
        self._looking = Threads(1, "gpu-look")
        self._on_gpus = Threads(_GPU_THREADS, "gpu-memory")

    async def close(self, timeout_s: float) -> bool:
        """Calls no GPU's driver any more.

        Returns:
            Whether it answered all calls in time; if not, the process must not wait for threads.
        """
        ended = await asyncio.gather(self._looking.close(timeout_s), self._on_gpus.close(timeout_s))
        return all(ended)

    async def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Gives a part of the shared memory object `key` a name for requests to use."""
        register = self._regions.register
        await self._run(register, name=name, key=key, offset=offset, byte_size=byte_size)

    async def unregister_region(self, name: str) -> None:
        """Forgets a name, or with "" all; requests that use the region go on."""
        await self._run(self._regions.unregister, name)

    def regions(self, name: str) -> Sequence[tuple[str, str, int, int]]:
        """(name, key, offset, byte_size) of every registered region, or of the one of the name."""
        return self._regions.regions(name)

    async def check_cuda_memory(self) -> None:
        """Raises UnavailableError where no memory of a GPU can be registered, and says why."""
        await self._looking.run(self._regions.check_cuda_usable)

    async def register_cuda_region(
        self, name: str, handle: bytes, device_id: int, byte_size: int
    ) -> None:
        """Gives memory of a GPU, which another process exports as `handle`, a name."""
        register = self._regions.register_cuda
        await self._on_gpus.run(
            register, name=name, handle=handle, device_id=device_id, byte_size=byte_size
        )

    async def unregister_cuda_region(self, name: str) -> None:
        """As `unregister_region`, of regions on GPUs."""
        await self._on_gpus.run(self._regions.unregister_cuda, name)

    def cuda_regions(self, name: str) -> Sequence[tuple[str, int, int]]:
        """(name, device_id, byte_size) of every region on a GPU, or of the one of the name."""
        return self._regions.cuda_regions(name)
