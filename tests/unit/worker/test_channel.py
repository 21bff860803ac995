"""A worker's channel by itself."""

import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from penstock.worker.channel import Channel
from penstock.worker.failure import NoRoomError
from penstock.worker.wire import PACKET, Kind


class Server:
    """The other end: sends slabs for outputs."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def map(self, number: int, size: int) -> None:
        fd = os.memfd_create("test")
        os.ftruncate(fd, size)
        socket.send_fds(self.socket, [PACKET.pack(Kind.MAP, number, 0, 0, 1, 0, size)], [fd])
        os.close(fd)


class QuickChannel(Channel):
    """Receives the answer before whoever sends gets on, as another thread may."""

    def send(self, kind: int, *arguments: Any, **fields: Any) -> None:
        super().send(kind, *arguments, **fields)
        self._receive()


def test_slab_that_comes_before_it_is_waited_for_is_taken() -> None:
    server = Server()
    channel = QuickChannel(server.theirs.detach())
    server.map(1, mmap.PAGESIZE)
    channel.wait_for_slab()
    server.map(2, 4 * mmap.PAGESIZE)

    def has_come(condition: Callable[[], bool]) -> None:
        assert condition(), "it would be waited for for ever"

    channel.wait_until = has_come
    assert len(channel.reserve(2 * mmap.PAGESIZE)) == 4 * mmap.PAGESIZE
    channel.close()
    server.socket.close()


def test_server_without_memory_for_a_slab_is_an_error_and_the_old_one_stays() -> None:
    server = Server()
    channel = Channel(server.theirs.detach())
    server.map(1, mmap.PAGESIZE)
    channel.wait_for_slab()
    server.socket.send(PACKET.pack(Kind.NO_ROOM, 0, 0, 0, 0, 0, 0))
    with pytest.raises(NoRoomError, match=f"no memory for outputs of {2 * mmap.PAGESIZE} bytes"):
        channel.reserve(2 * mmap.PAGESIZE)
    assert len(channel.reserve(mmap.PAGESIZE)) == mmap.PAGESIZE
    server.map(2, 4 * mmap.PAGESIZE)
    assert len(channel.reserve(2 * mmap.PAGESIZE)) == 4 * mmap.PAGESIZE
    channel.close()
    server.socket.close()


def test_server_that_goes_while_a_slab_is_waited_for_ends_the_worker() -> None:
    server = Server()
    channel = Channel(server.theirs.detach())
    server.map(1, mmap.PAGESIZE)
    channel.wait_for_slab()
    server.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(SystemExit):
        channel.reserve(2 * mmap.PAGESIZE)
    channel.close()
    server.socket.close()
