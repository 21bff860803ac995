"""Tensors in a GPU's memory, of a model that is served by the worker process of that GPU.

The GPUs are fake, those of a driver that is made for tests, in the server and in its worker, which
notes each copy; clients' memory on them is POSIX shared memory.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pytest
from tests.support.device_tensors import ROW_BYTES, Copies, answer, rows_of, run_all, wrong_answers
from tests.support.fake_cupy import FakeCupy
from tests.support.fixture_models import WITH_FAKE_GPUS, write_plan
from tests.support.server_process import Served, served

from penstock_client import Client, CudaMemory, RetryPolicy, UnavailableError

ONCE = RetryPolicy(max_attempts=1)
FAKE_MEMORY = "penstock-fake-gpu-"
PATIENCE_S = 60


class Server:
    def __init__(self, started: Served, copies: Copies) -> None:
        self.url = started.grpc
        self.copies = copies
        self._pid = started.pid

    def worker_pid(self) -> int:
        """The process of the GPU; 0 while there is none."""
        for each in psutil.Process(self._pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if each.name().startswith("penstock_device"):
                    return int(each.pid)
        return 0

    def has_another_worker(self, pid: int) -> bool:
        return self.worker_pid() not in {0, pid}

    def worker_has_memory_open(self) -> bool:
        pid = self.worker_pid()
        return pid != 0 and FAKE_MEMORY in Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    plan = write_plan(repository, "plan")
    with (plan / "config.pbtxt").open("a") as config:
        config.write("instance_group { kind: KIND_GPU gpus: [0] count: 2 }\n")
    noted = tmp_path_factory.mktemp("driver") / "copies"
    environment = {**WITH_FAKE_GPUS, "FAKE_DRIVER_COPIES": str(noted)}
    with served(repository, "--allow-client-shm=true", environment=environment) as started:
        yield Server(started, Copies(noted))


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(devices=2))


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, retry=ONCE) as opened:
        yield opened
        opened.unregister_cuda_memory()


@pytest.fixture
def memory(client: Client, cupy: None) -> Iterator[CudaMemory]:
    with CudaMemory.create(4096, name="r") as made:
        client.register_shared_memory(made)
        yield made


def test_tensors_on_the_models_gpu_never_pass_the_host(
    server: Server, client: Client, memory: CudaMemory
) -> None:
    x, b = rows_of(2), np.ones((2, 1), np.float32)
    in_x, in_b = memory.put(x), memory.put(b, 1024)
    outputs = {"y": memory.room(2 * ROW_BYTES, 2048), "n": memory.room(8, 3072)}
    for _ in range(3):
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


def test_region_of_another_gpu_goes_by_way_of_the_host(server: Server, client: Client) -> None:
    x, b = rows_of(2), np.ones((2, 1), np.float32)
    with CudaMemory.create(4096, name="other", device=1) as memory:
        client.register_shared_memory(memory)
        server.copies.take()
        outputs = {"y": memory.room(2 * ROW_BYTES, 2048)}
        result = client.infer("plan", {"x": memory.put(x), "b": b}, outputs=outputs)
        np.testing.assert_array_equal(result["y"], answer(x, b))
    copies = sorted(server.copies.take())  # of the region, then of the model's GPU
    assert copies == ["DtoH 128", "DtoH 128", "DtoH 8", "HtoD 128", "HtoD 128", "HtoD 8"]


def test_unregistered_memory_is_closed_in_the_worker_by_then(
    server: Server, client: Client, memory: CudaMemory
) -> None:
    placed, b = memory.put(rows_of(1)), np.zeros((1, 1), np.float32)
    assert not server.worker_has_memory_open()
    client.infer("plan", {"x": placed, "b": b})
    assert server.worker_has_memory_open()
    client.unregister_cuda_memory("r")
    assert not server.worker_has_memory_open()
    with pytest.raises(Exception, match="Unable to find shared memory region: 'r'"):
        client.infer("plan", {"x": placed, "b": b})


def test_many_clients_at_once_each_get_their_own(server: Server, memory: CudaMemory) -> None:
    assert wrong_answers(server.url, memory) == []


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up


def test_kills_of_the_worker_lose_no_request_and_the_next_one_opens_anew(
    server: Server, client: Client, memory: CudaMemory
) -> None:
    outcomes: list[str] = []
    ended = Event()

    def work(number: int) -> None:
        x, b = rows_of(1, 100.0 * number), np.zeros((1, 1), np.float32)
        placed = memory.put(x, 128 * number)
        outputs = {"y": memory.room(ROW_BYTES, 1024 + 128 * number), "n": None}
        with Client(server.url, retry=ONCE) as own:
            while not ended.is_set():
                try:
                    result = own.infer("plan", {"x": placed, "b": b}, outputs=outputs)
                except UnavailableError as error:
                    outcomes.append("unavailable" if "the worker of GPU 0" in str(error) else "odd")
                else:
                    is_right = (result["y"] == 2 * x + np.float32(result["n"][0])).all()
                    outcomes.append("right" if is_right else "wrong")

    def kill() -> None:
        try:
            for _ in range(3):
                until(server.worker_has_memory_open)
                killed = server.worker_pid()
                os.kill(killed, signal.SIGKILL)
                until(partial(server.has_another_worker, killed))
            until(server.worker_has_memory_open)
        finally:
            ended.set()

    threads = [Thread(target=kill), *(Thread(target=work, args=(each,)) for each in range(4))]
    run_all(iter(threads))
    assert set(outcomes) == {"right", "unavailable"}
    server.copies.take()
    placed, b = memory.put(rows_of(1)), np.zeros((1, 1), np.float32)
    np.testing.assert_array_equal(
        client.infer("plan", {"x": placed, "b": b})["y"], answer(rows_of(1), b)
    )
    assert "DtoD 64" in server.copies.take()
