"""penstock_client's memory of a GPU with the real CuPy and torch.

Each check prints its row, in milliseconds; the first that fails ends the program with status 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.provider import leave_out  # noqa: E402

from penstock_client import CudaMemory, SharedMemoryError, Tensor, TensorError  # noqa: E402

_BYTES = 1 << 20
_BF16_ONE = 0x3F80


def _same(found: Any, expected: Any, what: str) -> None:
    if not bool((found == expected).all()):
        raise AssertionError(f"{what} did not arrive as it was")


def put_cupy(cupy: Any, memory: CudaMemory) -> None:
    """Arrays of CuPy, contiguous and not."""
    values = cupy.arange(4096, dtype=cupy.float32).reshape(64, 64)
    for offset, each in ((0, values), (1 << 16, values.T), (1 << 17, values[::2, 1::3])):
        placed = memory.put(each, offset)
        _same(memory.array("FP32", placed.shape, offset), each, "an array of CuPy's")


def put_bits(cupy: Any, memory: CudaMemory) -> None:
    """The bits of BF16."""
    bits = cupy.full((8, 16), _BF16_ONE, cupy.uint16)
    placed = memory.put(Tensor(bits, "BF16"))
    if placed.datatype != "BF16" or placed.byte_size != 256:
        raise AssertionError(f"bits of BF16 became {placed!r}")
    _same(memory.array("BF16", (8, 16)), bits, "bits of BF16")


def read_back(cupy: Any, memory: CudaMemory) -> None:
    """What a server writes into a room."""
    room = memory.room(64, offset=1 << 18)
    memory.array("INT32", (16,), 1 << 18)[...] = cupy.arange(16, dtype=cupy.int32)
    cupy.cuda.get_current_stream().synchronize()
    _same(memory.read(room, "INT32", (16,), "y"), cupy.arange(16), "an output")


def open_elsewhere(cupy: Any, memory: CudaMemory) -> None:
    """A second process opens the handle, reads and writes."""
    memory.put(cupy.full(16, 7, cupy.int32))
    command = [sys.executable, "-m", "bench.gpu.client_memory", "--open", memory.handle.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"the other process: {done.stderr.strip().rpartition(chr(10))[2]}")
    _same(memory.array("INT32", (16,)), cupy.full(16, 8, cupy.int32), "what it wrote")


def put_torch(torch: Any, memory: CudaMemory) -> None:
    """Tensors of torch, contiguous and not."""
    values = torch.arange(4096, dtype=torch.float32, device="cuda").reshape(64, 64)
    for offset, each in ((0, values), (1 << 16, values.T), (1 << 17, values[::2, 1::3])):
        placed = memory.put(each, offset)
        there = torch.from_dlpack(memory.array("FP32", placed.shape, offset))
        _same(there, each, "a tensor of torch's")


def put_torch_bits(torch: Any, memory: CudaMemory) -> None:
    """bfloat16 of torch, as its bits."""
    values = torch.ones((8, 16), dtype=torch.bfloat16, device="cuda")
    memory.put(Tensor(values.view(torch.int16), "BF16"))
    there = torch.from_dlpack(memory.array("BF16", (8, 16)))
    _same(there.view(torch.bfloat16), values, "bfloat16")


def refuse_gradient(torch: Any, memory: CudaMemory) -> None:
    """A tensor that requires a gradient is refused."""
    try:
        memory.put(torch.ones(4, device="cuda", requires_grad=True))
    except TensorError:
        return
    raise AssertionError("a tensor that requires a gradient was taken")


def share_with_torch(torch: Any, memory: CudaMemory) -> None:
    """torch.from_dlpack is the memory itself."""
    there = torch.from_dlpack(memory.array("FP32", (4,)))
    there.fill_(3.0)
    torch.cuda.synchronize()
    _same(memory.array("FP32", (4,)), 3.0, "what torch wrote")


Check = Callable[[Any, CudaMemory], None]
OF_CUPY: Sequence[Check] = (put_cupy, put_bits, read_back, open_elsewhere)
OF_TORCH: Sequence[Check] = (put_torch, put_torch_bits, refuse_gradient, share_with_torch)


def timed(check: Check, library: Any, memory: CudaMemory) -> None:
    """Prints a check's row; AssertionError where it fails."""
    began = time.perf_counter()
    check(library, memory)
    values = dict.fromkeys(("median", "least", "greatest"), 1e3 * (time.perf_counter() - began))
    what = f"{library.__name__}: {(check.__doc__ or '').rstrip('.')}"
    table = "memory of clients: checked, with the time it took"
    print(json.dumps({"table": table, "what": what, "unit": "ms", **values}), flush=True)


def open_handle(handle: bytes) -> None:
    """The second process: adds one to what it finds there."""
    cupy = import_module("cupy")
    pointer = cupy.cuda.runtime.ipcOpenMemHandle(handle)
    try:
        memory = cupy.cuda.UnownedMemory(pointer, 64, None, 0)
        there = cupy.ndarray((16,), cupy.int32, cupy.cuda.MemoryPointer(memory, 0))
        _same(there, cupy.full(16, 7, cupy.int32), "what the first process wrote")
        there += 1
        cupy.cuda.get_current_stream().synchronize()
    finally:
        cupy.cuda.runtime.ipcCloseMemHandle(pointer)


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks; LEFT_OUT_STATUS where CuPy or a GPU is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=bytes.fromhex, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.open:
        open_handle(args.open)
        return
    try:
        memory = CudaMemory.create(_BYTES)
    except SharedMemoryError as error:
        leave_out(str(error))
        return
    cupy = import_module("cupy")
    with memory:
        for check in OF_CUPY:
            timed(check, cupy, memory)
        try:
            torch = import_module("torch")
        except ImportError:
            print("torch is not installed: checked with CuPy alone", flush=True)
            return
        for check in OF_TORCH:
            timed(check, torch, memory)


if __name__ == "__main__":
    main()
