"""Tensors of `write_plan`'s models in the memory of fake GPUs, and what their driver copied."""

from collections.abc import Iterable
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
from numpy.typing import NDArray

from penstock_client import Client, CudaMemory

Rows = NDArray[np.float32]
WIDTH = 16
ROW_BYTES = 4 * WIDTH


class Copies:
    """What the driver noted since the last look, in the server and its workers alike."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> list[str]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._path.write_text("")
        return lines


def rows_of(count: int, first: float = 0) -> Rows:
    return np.float32(first) + np.arange(count * WIDTH, dtype=np.float32).reshape(count, WIDTH)


def answer(x: Rows, b: Rows) -> Rows:
    return np.float32(2) * x + b + np.arange(len(x), dtype=np.float32)[:, None]


def wrong_answers(url: str, memory: CudaMemory) -> list[object]:
    """Of many clients at once, whose batches hold requests with and without tensors on the GPU.

    The row's number in the batch is in n.
    """
    workers, rounds = 6, 20
    wrong: list[object] = []
    barrier = Barrier(workers)

    def work(number: int) -> None:
        on_gpu = number % 2 == 0
        x, b = rows_of(1, 100.0 * number), np.full((1, 1), number, np.float32)
        with Client(url) as own:
            placed = memory.put(x, 128 * number) if on_gpu else x
            outputs = {"y": memory.room(ROW_BYTES, 1024 + 128 * number) if on_gpu else None}
            barrier.wait(timeout=60)
            for _ in range(rounds):
                result = own.infer("plan", {"x": placed, "b": b}, outputs={**outputs, "n": None})
                if not (result["y"] == 2 * x + b + np.float32(result["n"][0])).all():
                    wrong.append((number, result["y"].tolist()))

    run_all(Thread(target=work, args=(number,)) for number in range(workers))
    return wrong


def run_all(threads: Iterable[Thread]) -> None:
    started = list(threads)
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
