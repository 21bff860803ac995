"""What a service manager is told: systemd's notification protocol (sd_notify).

A datagram of VARIABLE=VALUE lines to the socket that NOTIFY_SOCKET names. Without that variable
nothing is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

__all__ = ["ServiceManager"]

_MICROSECONDS = 1_000_000

_log = logging.getLogger(__name__)


class ServiceManager:
    """The one that started this process, where it wants to be told how it is.

    Threading: confined to the event loop.
    Ownership: the timer of the watchdog.
    Lifecycle: tell and watch at any time -> close.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s(environ)
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, *lines: str) -> None:
        """Sends; what cannot be sent is logged and forgotten: serving does not depend on it."""
        if not self._address:
            return
        at = self._address
        at = "\0" + at[1:] if at.startswith("@") else at
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(lines).encode(), at)
        except OSError as error:
            _log.warning("cannot tell NOTIFY_SOCKET %s %s: %s", self._address, lines, error)

    def watch(self) -> None:
        """From now on the watchdog hears twice within its time that the event loop turns."""
        if self._address and self._watchdog_s:
            self.tell("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._watchdog_s / 2, self.watch)

    def close(self) -> None:
        """No more signs of life."""
        if self._timer is not None:
            self._timer.cancel()


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """Seconds within which a sign of life is due; 0 = nobody waits for one."""
    text, owner = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or owner not in ("", str(os.getpid())):
        return 0.0
    return int(text) / _MICROSECONDS
