"""Ports on loopback that nobody else gets while a test gives them to servers."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["reserved_port"]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port for servers that set SO_REUSEADDR, as Penstock does, one after another.

    It is held by a socket that is bound and never listens: Linux lets another one bind it that
    reuses addresses too, and gives it to nobody who asks for any port.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
