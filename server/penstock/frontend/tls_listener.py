"""A socket that listens for TLS: who shakes hands counts from the first packet on, and is bounded.

The event loop's own server has no say between a connection and the end of its handshake: as many as
there are descriptors could wait there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.frontend.https import HANDSHAKE_S

__all__ = ["Handshakes", "TlsListener"]

_GOODBYE_S = 5.0
"""For a client to say that it has heard of the end."""
_RETRY_S = 1.0
"""Until connections are taken again after there was no descriptor left for one."""

_log = logging.getLogger(__name__)


class Handshakes:
    """Those under way, of all sockets of a server.

    Threading: confined to the event loop.
    Lifecycle: any calls -> end.
    """

    def __init__(self, has_room_beside: Callable[[int], bool]) -> None:
        """`has_room_beside`: whether there may be one more beside so many."""
        self._has_room_beside = has_room_beside
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def has_room(self) -> bool:
        """Whether there may be one more."""
        return self._has_room_beside(len(self._tasks))

    def begin(self, handshake: Coroutine[Any, Any, None]) -> None:
        """One more."""
        task = asyncio.get_running_loop().create_task(handshake)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Breaks all of them off."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TlsListener:
    """As much of `asyncio.Server` as uvicorn uses.

    Threading: confined to the event loop.
    Ownership: the socket, once it is closed; borrows the handshakes.
    Lifecycle: made -> start -> close -> wait_closed.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        handshakes: Handshakes,
    ) -> None:
        """`make`: the protocol of one connection."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._context = context
        self._make = make
        self._handshakes = handshakes
        self._backlog = 0
        self._retry: asyncio.TimerHandle | None = None
        self._is_closed = False

    def start(self, backlog: int) -> None:
        """Begins to listen."""
        self._backlog = backlog
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._watch()

    def close(self) -> None:
        """Takes no more connections; those that shake hands go on."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: see `Handshakes.end`."""

    def _watch(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        """As many as there are, but others have their turn, too."""
        for _ in range(self._backlog):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or no memory is left
                _log.error("no connection can be taken for now: %s", error.strerror)
                self._loop.remove_reader(self._listener.fileno())
                self._retry = self._loop.call_later(_RETRY_S, self._watch)
                return
            if self._handshakes.has_room:
                self._handshakes.begin(self._shake_hands(connection))
            else:
                connection.close()

    async def _shake_hands(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # it has gone, or its TLS is not ours
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                self._make,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
