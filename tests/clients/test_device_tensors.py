"""Tensors in a GPU's memory, of a model that computes on GPUs in the server's process.

The GPUs are fake, those of a driver that is made for tests, which notes each copy; clients' memory
on them is POSIX shared memory.
"""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.device_tensors import ROW_BYTES, WIDTH, Copies, answer, rows_of, wrong_answers
from tests.support.fake_cupy import FakeCupy
from tests.support.fixture_models import WITH_FAKE_GPUS, write_plan
from tests.support.server_process import served

from penstock_client import Client, CudaMemory, InternalError


class Server:
    def __init__(self, url: str, copies: Copies) -> None:
        self.url = url
        self.copies = copies


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    write_plan(repository, "plan")
    write_plan(repository, "other", device="1")
    noted = tmp_path_factory.mktemp("driver") / "copies"
    environment = {**WITH_FAKE_GPUS, "FAKE_DRIVER_COPIES": str(noted)}
    with served(repository, "--allow-client-shm=true", environment=environment) as started:
        yield Server(started.grpc, Copies(noted))


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as opened:
        yield opened
        opened.unregister_cuda_memory()


@pytest.fixture
def memory(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaMemory]:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    with CudaMemory.create(4096, name="r") as made:
        client.register_shared_memory(made)
        yield made


def test_tensors_on_the_models_gpu_never_pass_the_host(
    server: Server, client: Client, memory: CudaMemory
) -> None:
    x, b = rows_of(2), np.ones((2, 1), np.float32)
    in_x, in_b = memory.put(x), memory.put(b, 1024)
    outputs = {"y": memory.room(2 * ROW_BYTES, 2048), "n": memory.room(8, 3072)}
    server.copies.take()
    result = client.infer("plan", {"x": in_x, "b": in_b}, outputs=outputs)
    np.testing.assert_array_equal(result["y"], answer(x, b))
    np.testing.assert_array_equal(result["n"], [0, 1])
    assert sorted(server.copies.take()) == ["DtoD 128", "DtoD 128", "DtoD 8", "DtoD 8"]


def test_what_travels_in_the_message_is_copied_as_ever(
    server: Server, client: Client, memory: CudaMemory
) -> None:
    x, b = rows_of(2), np.ones((2, 1), np.float32)
    server.copies.take()
    result = client.infer(
        "plan", {"x": memory.put(x), "b": b}, outputs={"y": None, "n": memory.room(8, 3072)}
    )
    np.testing.assert_array_equal(result["y"], answer(x, b))
    assert sorted(server.copies.take()) == ["DtoD 128", "DtoD 8", "DtoH 128", "HtoD 8"]


def test_region_of_another_gpu_is_copied_from_gpu_to_gpu(
    server: Server, client: Client, memory: CudaMemory
) -> None:
    x, b = rows_of(3), np.zeros((3, 1), np.float32)
    server.copies.take()
    outputs = {"y": memory.room(3 * ROW_BYTES, 2048)}
    result = client.infer("other", {"x": memory.put(x), "b": b}, outputs=outputs)
    np.testing.assert_array_equal(result["y"], answer(x, b))
    assert sorted(server.copies.take())[1:] == ["HtoD 12", "peer 192", "peer 192"]


def test_room_that_is_too_small_fails_its_request_and_stays_as_it_was(
    client: Client, memory: CudaMemory
) -> None:
    x, b = rows_of(2), np.zeros((2, 1), np.float32)
    memory.array("UINT8", (2 * ROW_BYTES,), 2048)[...] = 7
    outputs = {"y": memory.room(2 * ROW_BYTES - 1, 2048)}
    with pytest.raises(InternalError, match=r"'y' \(127 bytes\) should be at least 128 bytes"):
        client.infer("plan", {"x": x, "b": b}, outputs=outputs)
    assert (memory.array("UINT8", (2 * ROW_BYTES,), 2048) == 7).all()


def test_many_clients_at_once_each_get_their_own(server: Server, memory: CudaMemory) -> None:
    assert wrong_answers(server.url, memory) == []


def test_unregistered_memory_is_not_found_and_the_model_goes_on(
    client: Client, memory: CudaMemory
) -> None:
    placed = memory.put(rows_of(1))
    b = np.zeros((1, 1), np.float32)
    assert client.infer("plan", {"x": placed, "b": b})["y"].shape == (1, WIDTH)
    client.unregister_cuda_memory("r")
    with pytest.raises(Exception, match="Unable to find shared memory region: 'r'"):
        client.infer("plan", {"x": placed, "b": b})
    assert client.infer("plan", {"x": rows_of(1), "b": b})["y"].shape == (1, WIDTH)
