"""Channel: the socket to the server and the slabs that came over it."""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.worker.datatypes import BYTES, NUMPY
from penstock.worker.elements import decode_elements
from penstock.worker.failure import NoRoomError
from penstock.worker.wire import PACKET, InputRecord, Kind

Packet = tuple[int, int, int, int, int, int, int]
"""kind, slab, batch, request, value, offset, size."""

ALIGNMENT = 64
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)


class Channel:
    """Packets in and out.

    Threading: one thread receives, one at a time sends. Ownership: owns the socket and the slabs;
    arrays that lie in a slab keep its memory, which the server uses again for the next batch.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._slabs: dict[int, mmap.mmap] = {}
        self._outputs = 0  # the slab for outputs
        self._has_no_room = False  # for a larger one, the server
        self.wait_until: Callable[[Callable[[], bool]], None] = self._receive_until
        """Receives until a condition holds; whoever receives on another thread replaces it."""

    def receive(self, on_packet: Callable[[], None] | None = None) -> Packet | None:
        """Blocking. The next packet that is not about slabs; None: the server wants no more.

        Args:
            on_packet: called for those that are, too.
        """
        while True:
            packet = self._receive()
            if on_packet is not None:
                on_packet()
            if packet is None or packet[0] not in (Kind.MAP, Kind.UNMAP, Kind.NO_ROOM):
                return packet

    def send(
        self, kind: int, batch: int = 0, size: int = 0, *, request: int = 0, value: int = 0
    ) -> None:
        """Sends a packet without a body."""
        self._socket.send(PACKET.pack(kind, 0, batch, request, value, 0, size))

    def send_body(
        self,
        kind: int,
        body: bytes,
        batch: int = 0,
        offset: int = 0,
        *,
        request: int = 0,
        value: int = 0,
    ) -> None:
        """Sends a packet with a body, which is put at `offset` of the slab for outputs."""
        at = -(-offset // ALIGNMENT) * ALIGNMENT
        slab = self.reserve(at + len(body))
        slab[at : at + len(body)] = body
        self._socket.send(PACKET.pack(kind, self._outputs, batch, request, value, at, len(body)))

    def wait_for_slab(self) -> None:
        """Blocking. Returns once there is a slab for outputs: the server sends one first."""
        self.wait_until(lambda: self._outputs != 0)

    def use_outputs(self, slab: int) -> None:
        """Outputs go to this slab from now on."""
        self._outputs = slab

    def reserve(self, size: int) -> mmap.mmap:
        """The slab for outputs, of at least `size` bytes. What was written before may be lost.

        Raises:
            NoRoomError: the server has no memory for it.
        """
        slab = self._slabs[self._outputs]
        if len(slab) >= size:
            return slab
        before = self._outputs  # where another thread receives, the answer may be there at once
        self._has_no_room = False
        self.send(Kind.GROW, size=size)
        self.wait_until(lambda: self._outputs != before or self._has_no_room)
        if self._has_no_room:
            raise NoRoomError(f"the server has no memory for outputs of {size} bytes")
        return self._slabs[self._outputs]

    def _receive_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._receive() is None:
                raise SystemExit(0)

    def body(self, packet: Packet) -> tuple[mmap.mmap, int]:
        """A packet's body: where it lies."""
        return self._slabs[packet[1]], packet[5]

    def array(self, record: InputRecord) -> npt.NDArray[Any]:
        """An input: a view on its slab, or for BYTES an array of bytes objects."""
        _, datatype, slab, offset, size, dims = record
        if datatype == BYTES:
            count = 1
            for dim in dims:
                count *= dim
            data = self._slabs[slab][offset : offset + size] if size else b""
            return decode_elements(data, count).reshape(dims)
        dtype = NUMPY[datatype]
        if not size:
            return np.empty(dims, dtype)
        return np.ndarray(dims, dtype, self._slabs[slab], offset)

    def close(self) -> None:
        """Closes the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _receive(self) -> Packet | None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(PACKET.size, _ANCILLARY_BYTES)
        except ConnectionError:
            return None
        if len(data) != PACKET.size:
            return None
        packet: Packet = PACKET.unpack(data)
        if packet[0] == Kind.MAP:
            self._map(packet, ancillary)
        elif packet[0] == Kind.UNMAP:
            self._slabs.pop(packet[1], None)  # unmapped when the last array in it goes
        elif packet[0] == Kind.NO_ROOM:
            self._has_no_room = True
        return packet

    def _map(self, packet: Packet, ancillary: list[tuple[int, int, bytes]]) -> None:
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        self._slabs[packet[1]] = mmap.mmap(fds[0], packet[6])
        os.close(fds[0])
        if packet[4]:
            self._outputs = packet[1]
