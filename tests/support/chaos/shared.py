"""Those whose tensors lie in shared memory, which they shrink, forget and fill with lies."""

import asyncio
import os
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from tests.support.chaos.world import OK, World, outcome
from tests.support.requests import identity_request, tensor
from tritonclient.grpc import service_pb2 as wire

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
BUSY = grpc.StatusCode.UNAVAILABLE

SIZE = 4096
HALF = SIZE // 2
"""Inputs lie in the first half, outputs in the second."""


@dataclass(frozen=True)
class Memory:
    """An object of shared memory of this process, and the name it is registered by."""

    name: str
    path: str

    def write(self, data: bytes) -> None:
        self._at_file(lambda file: os.pwrite(file, data, 0))

    def read_output(self, size: int) -> bytes:
        data: bytes = self._at_file(lambda file: os.pread(file, size, HALF))
        return data

    def _at_file(self, work: Callable[[int], Any]) -> Any:
        file = os.open(self.path, os.O_RDWR)
        try:
            return work(file)
        finally:
            os.close(file)


@contextmanager
def created(rng: random.Random) -> Iterator[Memory]:
    name = f"penstock-chaos-{os.getpid()}-{rng.getrandbits(64):x}"
    path = f"/dev/shm/{name}"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        os.truncate(path, SIZE)
        yield Memory(name, path)
    finally:
        os.unlink(path)


async def register(world: World, rng: random.Random, memory: Memory) -> None:
    request = wire.SystemSharedMemoryRegisterRequest(
        name=memory.name, key=f"/{memory.name}", byte_size=SIZE
    )
    call = world.client(rng).unary("SystemSharedMemoryRegister", request.SerializeToString())
    code, text = await outcome(call)
    assert code is OK, f"register: {code} {text!r}"


async def unregister(world: World, rng: random.Random, memory: Memory) -> None:
    request = wire.SystemSharedMemoryUnregisterRequest(name=memory.name)
    call = world.client(rng).unary("SystemSharedMemoryUnregister", request.SerializeToString())
    code, text = await outcome(call)
    assert code is OK, f"unregister: {code} {text!r}"


@asynccontextmanager
async def registered(world: World, rng: random.Random) -> AsyncIterator[Memory]:
    with created(rng) as memory:
        await register(world, rng, memory)
        try:
            yield memory
        finally:
            await unregister(world, rng, memory)


def place(parameters: Any, memory: Memory, size: int, offset: int = 0) -> None:
    parameters["shared_memory_region"].string_param = memory.name
    parameters["shared_memory_byte_size"].int64_param = size
    parameters["shared_memory_offset"].int64_param = offset


def request_in(memory: Memory, values: list[float], model: str) -> bytes:
    """One row in and out of shared memory."""
    request = identity_request(values, model=model, raw_input_contents=[])
    place(request.inputs[0].parameters, memory, 4 * len(values))
    output = request.outputs.add(name="OUTPUT0")
    place(output.parameters, memory, HALF, HALF)
    payload: bytes = request.SerializeToString()
    return payload


async def settles(world: World, rng: random.Random) -> grpc.StatusCode:
    """A right request: the answer lies in the memory and not in the reply."""
    async with registered(world, rng) as memory:
        values = [float(rng.randrange(1000)) for _ in range(rng.randint(1, 64))]
        data = struct.pack(f"<{len(values)}f", *values)
        memory.write(data)
        payload = request_in(memory, values, "identity")
        code, reply = await outcome(world.client(rng).unary("ModelInfer", payload))
        assert code is OK, f"{code} {reply!r}"
        assert list(wire.ModelInferResponse.FromString(reply).raw_output_contents) == [b""]
        assert memory.read_output(len(data)) == data
        return code


async def shrinks(world: World, rng: random.Random) -> grpc.StatusCode:
    """The memory shrinks while the request is under way."""
    async with registered(world, rng) as memory:
        payload = request_in(memory, [1.0, 2.0], "slow")
        asking = asyncio.ensure_future(outcome(world.client(rng).unary("ModelInfer", payload)))
        for _ in range(rng.randrange(20)):
            await asyncio.wait({asking}, timeout=0.001)
        os.truncate(memory.path, rng.choice([0, 5, HALF, HALF + 3]))
        code, text = await asking
        assert code in {OK, INVALID, BUSY}, f"{code} {text!r}"
        return code


async def forgets(world: World, rng: random.Random) -> grpc.StatusCode:
    """The name goes while a request that uses it is under way."""
    async with registered(world, rng) as memory:
        payload = request_in(memory, [1.0, 2.0], "slow")
        asking = asyncio.ensure_future(outcome(world.client(rng).unary("ModelInfer", payload)))
        await unregister(world, rng, memory)
        code, text = await asking
        assert code in {OK, NOT_FOUND, BUSY}, f"{code} {text!r}"
        return code


async def lies(world: World, rng: random.Random) -> grpc.StatusCode:
    """Lengths of text that do not add up."""
    async with registered(world, rng) as memory:
        claim = rng.choice([5, 1 << 16, (1 << 31) - 1, (1 << 32) - 1])
        memory.write(struct.pack("<I", claim) + b"abcd")
        request = wire.ModelInferRequest(model_name="words")
        request.inputs.append(tensor("INPUT0", "BYTES", [1, 1]))
        place(request.inputs[0].parameters, memory, 8)
        call = world.client(rng).unary("ModelInfer", request.SerializeToString())
        code, text = await outcome(call)
        assert code is INVALID, f"{code} {text!r}"
        return code


async def claims(world: World, rng: random.Random) -> grpc.StatusCode:
    """Bounds and keys that cannot be."""
    with created(rng) as memory:
        key = rng.choice([f"/{memory.name}", "/../etc/passwd", "/", "", "/" + "k" * 300])
        huge = rng.choice([SIZE + 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
        request = wire.SystemSharedMemoryRegisterRequest(
            name=memory.name, key=key, offset=rng.choice([0, huge]), byte_size=huge
        )
        call = world.client(rng).unary("SystemSharedMemoryRegister", request.SerializeToString())
        code, text = await outcome(call)
        assert code is INVALID, f"{code} {text!r}"
        return code


DEEDS: tuple[Callable[[World, random.Random], Awaitable[grpc.StatusCode]], ...] = (
    *(settles, shrinks, forgets, lies, claims),
)


async def share(world: World, rng: random.Random) -> None:
    """One of them; nothing stays registered."""
    deed = rng.choice(DEEDS)
    world.count(f"shared {deed.__name__}", await deed(world, rng))
