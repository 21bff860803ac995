"""A GPU's memory: tensors that a client and a server on one machine hand over where they lie.

    with CudaMemory.create(1 << 20) as memory, Client("localhost:8001") as client:
        with client.shared_memory(memory):
            image = memory.put(cupy.zeros((1, 64), cupy.float32))  # or a tensor of torch's
            label = memory.room(8, offset=image.end)
            result = client.infer("digits", {"X": image}, outputs={"label": label})
            labels = torch.from_dlpack(result["label"])  # a CuPy array, on the GPU

It needs CuPy, which is imported by `CudaMemory.create` and not before. The server reads and writes
the memory while a request is under way, also one whose caller gave up waiting: until its answer
has come, leave its tensors alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from penstock_client.errors import ProtocolError, SharedMemoryError, TensorError
from penstock_client.regions import MemoryRegion, SharedRoom, SharedTensor
from penstock_client.tensors import (
    NUMPY_TYPES,
    Tensor,
    WireTensor,
    byte_size_of,
    datatype_of,
    decode,
    encode,
    leading_bytes,
)

__all__ = ["CudaMemory"]

_GRANULE_BYTES = 2 << 20
"""CUDA cuts smaller allocations from a block of this size, and exports the whole block."""
_DLPACK_CUDA = (2, 13)
"""DLPack's kDLCUDA and kDLCUDAManaged: what the GPU reads where it lies."""
_BF16_BITS = "<u2"
_NOT_GIVEN = (AttributeError, BufferError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What libraries raise about a tensor that they do not give, or not as it is."""


class CudaMemory(MemoryRegion):
    """Memory of a GPU that this process exports: a region that requests can place tensors in.

    Attributes:
        name: What requests call it, once it is registered with a server.
        byte_size: Its size.
        device: The GPU, as this process numbers them.
        server_device: The same GPU as the server numbers them.
        handle: The bytes of its cudaIpcMemHandle_t, by which a server opens it.

    Threading: thread-safe, but for `close`; who writes where at what time is the caller's affair.
    Ownership: owns the memory together with the arrays on it: it is freed when `close` was called
    and the last of them has gone. Unregister it first.
    """

    def __init__(self, allocation: _Allocation, name: str, byte_size: int, device: int) -> None:
        """See `create`."""
        self.name = name
        self.byte_size = byte_size
        self.device = self.server_device = device
        self.handle = allocation.export()
        self._cupy = allocation.cupy
        self._allocation: _Allocation | None = allocation

    @classmethod
    def create(
        cls,
        byte_size: int,
        *,
        device: int = 0,
        server_device: int | None = None,
        name: str = "",
    ) -> Self:
        """Takes zeroed memory of a GPU, in steps of 2 MiB: less cannot be exported by itself.

        Args:
            byte_size: At least 1.
            device: The GPU, as this process numbers them (CUDA_VISIBLE_DEVICES changes that).
            server_device: The same GPU as the server numbers them, where that is not the same.
            name: What requests call it; "" for a name that nobody else has.

        Raises:
            SharedMemoryError: There is no CuPy, no GPU, no such device, or not so much memory.
        """
        if byte_size < 1:
            raise SharedMemoryError(f"memory of a GPU of {byte_size} bytes: expected at least 1")
        cupy = _import_cupy()
        what = f"{byte_size} bytes of GPU {device}"
        with _told(cupy, what):
            made = cls(
                _Allocation(cupy, byte_size, device),
                name or f"penstock-cuda-{uuid4().hex}",
                byte_size,
                device,
            )
        if server_device is not None:
            made.server_device = server_device
        return made

    def __enter__(self) -> Self:
        """The memory itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Lets go of it."""
        self.close()

    def __repr__(self) -> str:
        """Name, device and size."""
        return f"CudaMemory({self.name!r}, device={self.device}, byte_size={self.byte_size})"

    def close(self) -> None:
        """Lets go of the memory, which is freed with the last array on it. Again does nothing."""
        self._allocation = None

    def array(self, datatype: str, shape: Sequence[int], offset: int = 0) -> Any:
        """The memory itself as a CuPy array, to compute inputs where they are read.

        Wait for the stream that writes it (`cupy.cuda.get_current_stream().synchronize()`) before
        a request names it: the server knows no stream of yours. BF16 is its bits, as uint16.

        Raises:
            SharedMemoryError: It is closed.
            TensorError: It does not lie within the memory, or the datatype has no fixed size.
        """
        placed = self.tensor(datatype, shape, offset)
        dtype = _BF16_BITS if datatype == "BF16" else NUMPY_TYPES[datatype]
        return self._view(dtype, placed.shape, placed.offset, placed.byte_size)

    def put(self, value: Any, offset: int = 0) -> SharedTensor:
        """Copies a tensor here, and gives it as an input for requests. Waits for the copy.

        Args:
            value: What has `__cuda_array_interface__` or `__dlpack__` on a GPU (CuPy, torch, JAX),
                this one or another, and is not copied to the host; a numpy array; or a `Tensor` of
                either, which for BF16 are the bits of 16-bit elements.
            offset: In bytes from the memory's begin.

        Raises:
            TensorError: It has no datatype on the wire, does not fit behind `offset`, or is not
                given by its library: one of torch's that requires a gradient, say.
        """
        where = f"tensor at byte {offset} of {self!r}"
        named = value.datatype if isinstance(value, Tensor) else ""
        source = self._on_device(value.data if named else value, where)
        if source is None:
            return self._put_host(value, offset, where)
        datatype = named or datatype_of(source) or ""
        size = byte_size_of(datatype, source.shape)
        if size is None or size != source.nbytes:
            raise TensorError(
                f"{where}: dtype '{source.dtype}' does not fit datatype '{datatype or 'none'}'"
            )
        placed = SharedTensor(self, datatype, tuple(source.shape), offset, size)
        with _told(self._cupy, where), self._cupy.cuda.Device(self.device):
            self._view(source.dtype, placed.shape, offset, size)[...] = source
            self._cupy.cuda.get_current_stream().synchronize()
        return placed

    def read(self, room: SharedRoom, datatype: str, shape: Sequence[int], where: str) -> Any:
        """The output that a server put into a room: a CuPy array on it, BF16 as its bits (uint16).

        BYTES come as a numpy array, for no GPU's library has such.

        Raises:
            ProtocolError: Such a tensor would be larger than the room.
        """
        if datatype == "BYTES":
            return self._read_bytes(room, shape, where)
        size = byte_size_of(datatype, shape)
        if size is None or any(dim < 0 for dim in shape):
            raise ProtocolError(f"{where}: {datatype} {list(shape)} is no tensor")
        if size > room.byte_size:
            raise room.too_small(datatype, shape, where)
        return self.array(datatype, shape, room.offset)

    def _read_bytes(self, room: SharedRoom, shape: Sequence[int], where: str) -> Any:
        raw = self._cupy.asnumpy(
            self._view("u1", (room.byte_size,), room.offset, room.byte_size)
        ).tobytes()
        try:
            size = leading_bytes("BYTES", shape, raw)
        except ValueError:
            size = room.byte_size + 1
        if size > room.byte_size:
            raise room.too_small("BYTES", shape, where)
        return decode(WireTensor("BYTES", tuple(shape), raw[:size]), where)

    def _put_host(self, value: Any, offset: int, where: str) -> SharedTensor:
        wire = encode(value, where)
        placed = SharedTensor(self, wire.datatype, wire.shape, offset, len(wire.raw))
        if placed.byte_size:
            with _told(self._cupy, where), self._cupy.cuda.Device(self.device):
                host = bytearray(wire.raw)
                self._view("u1", (len(host),), offset, len(host)).set(
                    decode(WireTensor("UINT8", (len(host),), memoryview(host)), where)
                )
                self._cupy.cuda.get_current_stream().synchronize()
        return placed

    def _on_device(self, value: Any, where: str) -> Any | None:
        """The value as a CuPy array, uncopied but from another GPU; None if it lies on the host."""
        try:
            return self._as_cupy(value)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise SharedMemoryError(f"{where}: {error}") from None
        except _NOT_GIVEN as error:
            raise TensorError(
                f"{where}: a {type(value).__name__} on a GPU that cannot be taken: {error} "
                "(BF16 is sent as Tensor(bits, 'BF16'), of 16-bit integers)"
            ) from error

    def _as_cupy(self, value: Any) -> Any | None:
        # DLPack first: it says where a tensor lies without giving it, and orders its library's
        # stream before ours, which torch's other interface does not.
        if hasattr(value, "__dlpack_device__"):
            if value.__dlpack_device__()[0] not in _DLPACK_CUDA:
                return None
            array = self._cupy.from_dlpack(value)
        elif hasattr(value, "__cuda_array_interface__"):
            array = self._cupy.asarray(value)
        else:
            return None
        if array.device.id == self.device:
            return array
        with self._cupy.cuda.Device(self.device):
            return self._cupy.asarray(array)

    def _view(self, dtype: Any, shape: tuple[int, ...], offset: int, byte_size: int) -> Any:
        if self._allocation is None:
            raise SharedMemoryError(f"{self!r} is closed")
        return self._allocation.view(dtype, shape, offset, byte_size)


class _Allocation:
    """Memory taken from CUDA, given back when nobody has it any more."""

    def __init__(self, cupy: Any, byte_size: int, device: int) -> None:
        """May raise whatever CuPy does."""
        self.cupy = cupy
        self._device = device
        self._pointer = 0
        whole = -(-byte_size // _GRANULE_BYTES) * _GRANULE_BYTES
        with cupy.cuda.Device(device):
            self._pointer = cupy.cuda.runtime.malloc(whole)
            cupy.cuda.runtime.memset(self._pointer, 0, whole)

    def __del__(self) -> None:
        """Frees it; at the end of the process CUDA has done so."""
        if pointer := self._pointer:
            with self.cupy.cuda.Device(self._device):
                self.cupy.cuda.runtime.free(pointer)

    def export(self) -> bytes:
        """Its cudaIpcMemHandle_t."""
        with self.cupy.cuda.Device(self._device):
            return bytes(self.cupy.cuda.runtime.ipcGetMemHandle(self._pointer))

    def view(self, dtype: Any, shape: tuple[int, ...], offset: int, byte_size: int) -> Any:
        """A CuPy array on a part of it, which keeps it."""
        cuda = self.cupy.cuda
        memory = cuda.UnownedMemory(self._pointer + offset, byte_size, self, self._device)
        return self.cupy.ndarray(shape, dtype, cuda.MemoryPointer(memory, 0))


def _import_cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        raise SharedMemoryError(
            "memory of a GPU needs the package CuPy, which is not installed: cupy-cuda13x or "
            "cupy-cuda12x, as the driver is"
        ) from None
    with _told(cupy, "memory of a GPU"):
        if cupy.cuda.runtime.getDeviceCount() == 0:
            raise SharedMemoryError("memory of a GPU: CUDA finds no GPU on this machine")
    return cupy


@contextmanager
def _told(cupy: Any, what: str) -> Iterator[None]:
    """Turns what CUDA's runtime raises into errors of this package."""
    try:
        yield
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise SharedMemoryError(f"{what}: {error}") from None
