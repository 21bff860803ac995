"""Tensors in system shared memory against raw contents, interleaved in one run.

Run: .venv/bin/python bench/shared_memory.py [--rounds 7] [--requests 300] [--kilobytes 1024]

One server, one connection, an identity model on ONNX Runtime, one FP32 tensor each way. Each round
sends so many requests with the tensors in the messages, then as many with both in shared memory;
every answer is compared with what was sent. Prints requests per second and the server's CPU time
per request of both ways, one request at a time and with several in flight, and the ratio of each
round.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import _measure
import numpy as np
import onnx
from onnx import TensorProto, helper
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc import aio as triton
from tritonclient.utils import shared_memory as shm


def write_identity(repository: Path, width: int) -> None:
    """A model whose output is its input, of so many floats."""
    directory = repository / "identity" / "1"
    directory.mkdir(parents=True)
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name in ("X", "Y")
    ]
    node = helper.make_node("Identity", ["X"], ["Y"])
    graph = helper.make_graph([node], "identity", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, directory / "model.onnx")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=300, help="per way and round")
    parser.add_argument("--kilobytes", type=int, default=1024, help="of the tensor")
    parser.add_argument("--inflight", type=int, default=4, help="requests at a time, beside 1")
    args = parser.parse_args()
    width = args.kilobytes * 256
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        write_identity(Path(folder), width)
        with _measure.penstock(Path(folder), "--allow-client-shm=true") as (process, address):
            for inflight in (1, args.inflight):
                print(f"{args.kilobytes} KiB each way, {inflight} in flight")
                asyncio.run(measure(process.pid, address, width, args, inflight))


async def measure(
    pid: int, address: str, width: int, args: argparse.Namespace, inflight: int
) -> None:
    """Both ways in turn, for so many rounds after one to warm up."""
    values = np.random.default_rng(7).random((1, width), np.float32)
    rates: dict[str, list[float]] = {"raw": [], "shared": []}
    cpu_us: dict[str, list[float]] = {"raw": [], "shared": []}
    async with triton.InferenceServerClient(address) as client:
        slots = [Slot(client, values) for _ in range(inflight)]
        for slot in slots:
            await slot.register()
        for round_ in range(args.rounds + 1):
            for way in rates:
                cpu_s, start_s = _measure.cpu_seconds(pid), time.perf_counter()
                each = args.requests // inflight
                await asyncio.gather(*(slot.ask(way, each) for slot in slots))
                elapsed_s = time.perf_counter() - start_s
                if round_ > 0:
                    done = each * inflight
                    rates[way].append(done / elapsed_s)
                    cpu_us[way].append((_measure.cpu_seconds(pid) - cpu_s) / done * 1e6)
        for slot in slots:
            await slot.close()
    for way in rates:
        print(f"{way:7} {_measure.Spread(tuple(rates[way]))} req/s,", end=" ")
        print(f"{_measure.Spread(tuple(cpu_us[way]))} us of server CPU per request")
    ratios = [shared / raw for shared, raw in zip(rates["shared"], rates["raw"], strict=True)]
    print(f"ratio   {median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})")


class Slot:
    """One request at a time, either way, with memory of its own."""

    def __init__(self, client: triton.InferenceServerClient, values: Any) -> None:
        self._client = client
        self._values = values
        self._name = f"penstock-bench-{uuid4().hex}"
        self._memory = shm.create_shared_memory_region("r", f"/{self._name}", 2 * values.nbytes)

    async def register(self) -> None:
        """Makes the memory known to the server."""
        await self._client.register_system_shared_memory(
            self._name, f"/{self._name}", 2 * self._values.nbytes
        )

    async def close(self) -> None:
        """Takes it away."""
        await self._client.unregister_system_shared_memory(self._name)
        shm.destroy_shared_memory_region(self._memory)

    async def ask(self, way: str, count: int) -> None:
        """So many requests, each from the array and back to an array, as an application would."""
        ask = self._ask_raw if way == "raw" else self._ask_shared
        for _ in range(count):
            await ask()

    async def _ask_raw(self) -> None:
        given = InferInput("X", list(self._values.shape), "FP32")
        given.set_data_from_numpy(self._values)
        result = await self._client.infer("identity", [given])
        self._check(result.as_numpy("Y"))

    async def _ask_shared(self) -> None:
        size = self._values.nbytes
        shm.set_shared_memory_region(self._memory, [self._values])
        given = InferInput("X", list(self._values.shape), "FP32")
        given.set_shared_memory(self._name, size)
        wanted = InferRequestedOutput("Y")
        wanted.set_shared_memory(self._name, size, size)
        await self._client.infer("identity", [given], outputs=[wanted])
        # The array is a view: it is gone before the memory is closed.
        self._check(shm.get_contents_as_numpy(self._memory, np.float32, self._values.shape, size))

    def _check(self, answer: Any) -> None:
        if not np.array_equal(answer, self._values):
            raise SystemExit("the answer is not what was sent")


if __name__ == "__main__":
    main()
