"""penstock_client with tensors in a GPU's memory, both clients, against the server.

CuPy is a stand-in, and the server's GPUs are fake: both have POSIX shared memory for a GPU's.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.fake_cupy import FakeCupy, InDlpack, OnDevice
from tests.support.fixture_models import WITH_FAKE_GPUS, write_identity, write_simple
from tests.support.server_process import served
from tests.unit.client.kinds import settle

from penstock_client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    CudaMemory,
    CudaMemoryRegion,
    InvalidArgumentError,
    NotFoundError,
    SharedMemory,
)

ROW = np.arange(16, dtype=np.int32).reshape(1, 16)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    write_simple(repository)
    write_identity(repository, "words", datatype="BYTES")
    with served(repository, "--allow-client-shm=true", environment=WITH_FAKE_GPUS) as server:
        yield server.grpc


@pytest.fixture(params=[Client, AsyncClient])
async def client(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    opened = request.param(url)
    yield opened
    await settle(opened.unregister_cuda_memory())
    await settle(opened.close())


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaMemory]:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    with CudaMemory.create(4096, name="r") as made:
        yield made


@pytest.mark.parametrize("kind", [OnDevice, InDlpack])
async def test_tensors_are_read_and_written_on_the_gpu(
    kind: Any, client: Any, memory: CudaMemory
) -> None:
    await settle(client.register_shared_memory(memory))
    placed = memory.put(kind(ROW))
    room = memory.room(64, offset=placed.end)
    inputs = {"INPUT0": placed, "INPUT1": np.ones_like(ROW)}
    outputs = {"OUTPUT0": room, "OUTPUT1": None}
    result = await settle(client.infer("simple", inputs, outputs=outputs))
    np.testing.assert_array_equal(result["OUTPUT0"], ROW + 1)
    assert result["OUTPUT0"].memory is not None  # an array of the GPU's
    np.testing.assert_array_equal(result["OUTPUT1"], ROW - 1)


async def test_text_lies_there_as_well(client: Any, memory: CudaMemory) -> None:
    await settle(client.register_shared_memory(memory))
    placed = memory.put(np.array([["one", "three"]], object))
    outputs = {"OUTPUT0": memory.room(64, offset=1024)}
    result = await settle(client.infer("words", {"INPUT0": placed}, outputs=outputs))
    assert result["OUTPUT0"].tolist() == [[b"one", b"three"]]


async def test_registration_is_told_and_refused_twice(client: Any, memory: CudaMemory) -> None:
    await settle(client.register_shared_memory(memory))
    (found,) = await settle(client.cuda_memory_status())
    assert found == CudaMemoryRegion("r", 0, 4096)
    assert not await settle(client.shared_memory_status())
    with pytest.raises(AlreadyExistsError, match="'r' already in manager"):
        await settle(client.register_shared_memory(memory))
    await settle(client.unregister_cuda_memory("r"))
    with pytest.raises(NotFoundError, match="Unable to find cuda shared memory region: 'r'"):
        await settle(client.cuda_memory_status("r"))


async def test_device_that_the_server_has_not_is_refused(client: Any, memory: CudaMemory) -> None:
    memory.server_device = 7
    with pytest.raises(InvalidArgumentError, match="expected a device below 2, got 7"):
        await settle(client.register_shared_memory(memory))


def test_region_is_registered_for_the_length_of_a_block(url: str, memory: CudaMemory) -> None:
    with Client(url) as client, SharedMemory.create(64) as other:
        with client.shared_memory(memory) as entered, client.shared_memory(other):
            assert entered is memory
            assert [each.name for each in client.cuda_memory_status()] == ["r"]
            assert len(client.shared_memory_status()) == 1
        assert not client.cuda_memory_status()
        assert not client.shared_memory_status()


async def test_asyncio_client_has_the_same_block(url: str, memory: CudaMemory) -> None:
    async with AsyncClient(url) as client:
        async with client.shared_memory(memory):
            assert [each.name for each in await client.cuda_memory_status()] == ["r"]
        assert not await client.cuda_memory_status()
