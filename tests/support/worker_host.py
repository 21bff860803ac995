"""The server's side of the worker protocol, in Python, for tests of the runtime in this process."""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from penstock.worker.datatypes import BYTES, NUMPY, number_of_array
from penstock.worker.elements import decode_elements, encode_elements
from penstock.worker.serve import serve
from penstock.worker.wire import PACKET, Kind

_PATIENCE_S = 20.0


class Reply:
    """A packet from the worker and, where it has one, its body."""

    def __init__(self, packet: tuple[int, ...], body: bytes) -> None:
        self.kind = Kind(packet[0])
        self.batch, self.request, self.value = packet[2], packet[3], packet[4]
        self.body = body


class WorkerHost:
    """Runs `serve` on a thread and talks to it as the server does."""

    def __init__(self, model_file: Path, config: dict[str, Any] | None = None) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE_S)
        self._slabs: dict[int, mmap.mmap] = {}
        self.outputs = 0
        self.has_room = True
        """Whether there is memory where the worker asks for more."""
        document = {
            "model_name": "m",
            "version": 1,
            "path": str(model_file),
            "model_directory": str(model_file.parent.parent),
            "config": "" if config is None else json.dumps(config),
            "memory_limit_bytes": 0,
        }
        self._thread = threading.Thread(target=self._serve, args=(theirs.detach(), document))
        self.map_outputs(4096)
        self._thread.start()

    def _serve(self, fd: int, document: dict[str, Any]) -> None:
        with suppress(SystemExit):
            serve(fd, document)

    def map(self, size: int, value: int = 0) -> int:
        """Gives the worker a slab; its number."""
        fd = os.memfd_create("test")
        os.ftruncate(fd, size)
        number = len(self._slabs) + 1
        self._slabs[number] = mmap.mmap(fd, size)
        packet = PACKET.pack(Kind.MAP, number, 0, 0, value, 0, size)
        socket.send_fds(self._socket, [packet], [fd])
        os.close(fd)
        return number

    def map_outputs(self, size: int) -> None:
        """Gives the worker a slab for outputs."""
        self.outputs = self.map(size, 1)

    def send(self, kind: Kind, body: bytes = b"", **fields: int) -> None:
        """Sends a packet with its body in a slab of its own."""
        slab = self.map(max(len(body), 1)) if body else 0
        if body:
            self._slabs[slab][: len(body)] = body
        names = ("batch", "request", "value", "offset")
        self._socket.send(
            PACKET.pack(kind, slab, *(fields.get(name, 0) for name in names), len(body))
        )

    def receive(self) -> Reply:
        """The worker's next packet; answers GROW."""
        while True:
            packet = PACKET.unpack(self._socket.recv(PACKET.size))
            if packet[0] != Kind.GROW:
                break
            if self.has_room:
                self.map_outputs(packet[6])
            else:
                self.send(Kind.NO_ROOM)
        body = b""
        if packet[6]:
            body = self._slabs[packet[1]][packet[5] : packet[5] + packet[6]]
        return Reply(packet, body)

    def is_silent(self) -> bool:
        """Whether nothing has come that was not received."""
        return not select.select([self._socket], [], [], 0.01)[0]

    def start(self) -> Reply:
        """Takes DESCRIBED and has the model made ready; READY or FAILED."""
        reply = self.receive()
        if reply.kind is not Kind.DESCRIBED:
            return reply
        self.send(Kind.START, b"m_1_0")
        return self.receive()

    def run(
        self,
        inputs: Sequence[npt.NDArray[Any]],
        wanted: Sequence[int] = (0,),
        requests: Sequence[bytes] = (),
        batch: int = 1,
    ) -> None:
        """Sends a batch."""
        body = struct.pack("<III", len(inputs), len(wanted), len(requests))
        for index, array in enumerate(inputs):
            number = number_of_array(array.dtype)
            data = encode_elements(array) if number == BYTES else array.tobytes()
            slab = self.map(max(len(data), 1))
            self._slabs[slab][: len(data)] = data
            body += struct.pack("<IIIIQQ", index, number, slab, array.ndim, 0, len(data))
            body += struct.pack(f"<{array.ndim}q", *array.shape)
        body += struct.pack(f"<{len(wanted)}I", *wanted) + b"".join(requests)
        self.send(Kind.RUN, body, batch=batch, value=self.outputs)

    def results(self, reply: Reply) -> list[tuple[int, str, list[npt.NDArray[Any]]]]:
        """Code, text and outputs of each result of a DONE."""
        (count,) = struct.unpack_from("<I", reply.body)
        results, offset = [], 4
        for _ in range(count):
            result, offset = self._result(reply.body, offset)
            results.append(result)
        return results

    def _result(
        self, body: bytes, offset: int
    ) -> tuple[tuple[int, str, list[npt.NDArray[Any]]], int]:
        code, text_size, outputs = struct.unpack_from("<III", body, offset)
        offset += 12 + text_size
        text = body[offset - text_size : offset].decode()
        arrays = []
        for _ in range(outputs):
            _, number, rank, at, size = struct.unpack_from("<IIIQQ", body, offset)
            dims = struct.unpack_from(f"<{rank}q", body, offset + 28)
            offset += 28 + 8 * rank
            data = self._slabs[self.outputs][at : at + size]
            if number == BYTES:
                array: npt.NDArray[Any] = decode_elements(data, int(np.prod(dims))).reshape(dims)
            else:
                array = np.frombuffer(data, NUMPY[number]).reshape(dims)
            arrays.append(array)
        return (code, text, arrays), offset

    def close(self) -> None:
        """Closes the connection and waits for the worker's end."""
        self._socket.close()
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive()


MakeHost = Callable[..., WorkerHost]


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[MakeHost]:
    """Makes hosts of a model.py with these contents and this configuration."""
    hosts = []

    def make(source: str, config: dict[str, Any] | None = None) -> WorkerHost:
        directory = tmp_path / "m" / "1"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.py").write_text(dedent(source))
        hosts.append(WorkerHost(directory / "model.py", config))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def request_bytes(
    rows: int, wanted: Sequence[int] = (0,), request_id: str = "", room: int = 0
) -> bytes:
    """A request of a RUN."""
    name = request_id.encode()
    header = struct.pack("<IIqIII", rows, room, 0, len(wanted), 0, len(name))
    return header + struct.pack(f"<{len(wanted)}I", *wanted) + name
