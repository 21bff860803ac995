"""penstock_client with tensors in system shared memory, both clients, against the server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.fixture_models import write_identity, write_simple
from tests.support.server_process import served
from tests.unit.client.kinds import settle

from penstock_client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    InferRequest,
    InferResult,
    InvalidArgumentError,
    NotFoundError,
    SharedMemory,
    SharedMemoryRegion,
    StreamResponseError,
)

ROW = np.arange(16, dtype=np.int32).reshape(1, 16)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    write_simple(repository)
    write_identity(repository, "words", datatype="BYTES")
    with served(repository, "--allow-client-shm=true") as server:
        yield server.grpc


@pytest.fixture(params=[Client, AsyncClient])
async def client(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    opened = request.param(url)
    yield opened
    await settle(opened.unregister_shared_memory())
    await settle(opened.close())


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    with SharedMemory.create(4096, name="r") as made:
        yield made


async def entered(stack: AsyncExitStack, context: Any) -> Any:
    if hasattr(context, "__aenter__"):
        return await stack.enter_async_context(context)
    return stack.enter_context(context)


async def test_tensors_in_shared_memory_are_read_and_written_there(
    client: Any, memory: SharedMemory
) -> None:
    async with AsyncExitStack() as stack:
        await entered(stack, client.shared_memory(memory))
        inputs = {"INPUT0": memory.put(3 * ROW, 8), "INPUT1": memory.put(ROW, 72)}
        room = memory.room(100, 136)
        outputs = {"OUTPUT1": None, "OUTPUT0": room}
        result = await settle(client.infer("simple", inputs, outputs=outputs))
        assert list(result) == ["OUTPUT1", "OUTPUT0"]
        np.testing.assert_array_equal(result["OUTPUT0"], 4 * ROW)
        np.testing.assert_array_equal(result["OUTPUT1"], 2 * ROW)
        there = np.frombuffer(memory.buffer, np.int32, 16, offset=136)
        np.testing.assert_array_equal(there, 4 * ROW[0])
        assert not result["OUTPUT0"].flags.writeable
    assert await settle(client.shared_memory_status()) == ()


async def test_inputs_may_lie_in_both_places(client: Any, memory: SharedMemory) -> None:
    await settle(client.register_shared_memory(memory))
    np.frombuffer(memory.buffer, np.int32, 16, offset=64)[:] = ROW
    inputs = {"INPUT0": 2 * ROW, "INPUT1": memory.tensor("INT32", (1, 16), 64)}
    result = await settle(client.infer("simple", inputs))
    np.testing.assert_array_equal(result["OUTPUT0"], 3 * ROW)


async def test_words_take_no_more_of_their_room_than_they_need(
    client: Any, memory: SharedMemory
) -> None:
    await settle(client.register_shared_memory(memory))
    words = np.array([["grüße", b"\xff\0", ""]], object)
    inputs, room = {"INPUT0": memory.put(words)}, memory.room(1024, 1024)
    result = await settle(client.infer("words", inputs, outputs={"OUTPUT0": room}))
    assert result["OUTPUT0"].tolist() == [["grüße".encode(), b"\xff\0", b""]]


async def test_regions_are_listed_and_forgotten(client: Any, memory: SharedMemory) -> None:
    await settle(client.register_shared_memory(memory))
    region = SharedMemoryRegion("r", memory.key, 0, 4096)
    assert await settle(client.shared_memory_status("r")) == (region,)
    with pytest.raises(AlreadyExistsError):
        await settle(client.register_shared_memory(memory))
    with SharedMemory.attach(memory.key, name="again") as other:
        await settle(client.register_shared_memory(other))
        assert {r.name for r in await settle(client.shared_memory_status())} == {"r", "again"}
    await settle(client.unregister_shared_memory("r"))
    with pytest.raises(NotFoundError, match="Unable to find system shared memory region: 'r'"):
        await settle(client.shared_memory_status("r"))


async def test_region_is_unregistered_where_its_block_fails(
    client: Any, memory: SharedMemory
) -> None:
    with pytest.raises(InvalidArgumentError):
        async with AsyncExitStack() as stack:
            await entered(stack, client.shared_memory(memory))
            inputs = {"INPUT0": memory.put(ROW), "INPUT1": memory.put(ROW.astype(np.int64), 64)}
            await settle(client.infer("simple", inputs))
    assert await settle(client.shared_memory_status()) == ()


async def test_stream_reads_each_answer_from_its_own_room(
    client: Any, memory: SharedMemory
) -> None:
    await settle(client.register_shared_memory(memory))

    def request(number: int, **changes: Any) -> InferRequest:
        inputs = {"INPUT0": memory.put(number * ROW, 64 * number), "INPUT1": ROW}
        outputs = {"OUTPUT0": memory.room(64, 1024 + 64 * number)}
        given = {"inputs": inputs, "outputs": outputs, "request_id": str(number), **changes}
        return InferRequest("simple", **given)

    requests = [request(0), request(1, inputs={"INPUT0": ROW}), request(2)]
    stream = client.stream(requests)
    answers = [a async for a in stream] if hasattr(stream, "__aiter__") else list(stream)
    assert isinstance(answers[1], StreamResponseError)
    for number in (0, 2):
        assert isinstance(answers[number], InferResult)
        np.testing.assert_array_equal(answers[number]["OUTPUT0"], (number + 1) * ROW)


def test_memory_that_was_created_is_gone_at_the_end_of_its_block() -> None:
    with SharedMemory.create(64) as memory:
        array = memory.room(4).read("INT32", (1,), "output 'o'")
        with SharedMemory.attach(memory.key) as other:
            other.put(np.array([7], np.int32))
        assert Path("/dev/shm", memory.name).exists()
    assert not Path("/dev/shm", memory.name).exists()
    assert array.tolist() == [7]  # an array keeps what it lies on
