"""Listening sockets that this process was started with, by the protocol of systemd.

LISTEN_FDS says how many descriptors there are from 3 on, LISTEN_FDNAMES what each is for, separated
by colons, and LISTEN_PID whom they are meant for. A successor (`penstock.handover`) is given its
predecessor's sockets in the same way, and one descriptor more: the connection between the two.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from penstock.config import ServerConfig
from penstock.errors import StartupError
from penstock.frontend.addresses import is_loopback

__all__ = ["FIRST_FD", "PREDECESSOR", "SIDES", "Inherited"]

FIRST_FD = 3
SIDES = ("grpc", "http", "metrics")
PREDECESSOR = "predecessor"
"""The name of the connection to the process that this one follows."""
_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_MAX_FDS = 64

_log = logging.getLogger(__name__)


class Inherited:
    """The sockets by what they are for.

    Threading: confined to the event loop.
    Ownership: the sockets, until they are taken.
    """

    def __init__(
        self,
        sockets: Mapping[str, Sequence[socket.socket]] | None = None,
        predecessor: socket.socket | None = None,
    ) -> None:
        self._sockets = {name: list(each) for name, each in (sockets or {}).items()}
        self.predecessor = predecessor

    @classmethod
    def take(cls, environ: MutableMapping[str, str], first_fd: int = FIRST_FD) -> Inherited:
        """What the process was started with; its variables are removed, so that no child has them.

        Raises:
            StartupError: a name that is none of ours, or a descriptor that is no listening socket.
        """
        count, owner, names = (environ.pop(each, "") for each in _VARIABLES)
        if not count or owner != str(os.getpid()):
            return cls()
        if not count.isdecimal() or int(count) > _MAX_FDS:
            raise StartupError(f"LISTEN_FDS: expected a number up to {_MAX_FDS}, got {count!r}")
        given = names.split(":") if names else []
        if len(given) != int(count):
            raise StartupError(
                f"LISTEN_FDNAMES: expected {count} names (FileDescriptorName= in systemd's socket"
                f" unit), one of {', '.join(SIDES)} each, got {names!r}"
            )
        sockets: dict[str, list[socket.socket]] = {}
        predecessor = None
        for number, name in enumerate(given):
            if name == PREDECESSOR:
                predecessor = _adopt(first_fd + number, name)
            else:
                sockets.setdefault(name, []).append(_listener(first_fd + number, name))
        return cls(sockets, predecessor)

    def of(self, side: str) -> list[socket.socket]:
        """Takes the sockets for a side; the caller closes them. Empty: it binds its own."""
        return self._sockets.pop(side, [])

    def has(self, side: str) -> bool:
        """Whether there are any that were not taken."""
        return side in self._sockets

    def applied_to(self, config: ServerConfig) -> ServerConfig:
        """The settings with the addresses of these sockets in place of those to bind.

        Raises:
            StartupError: a socket for a side that is switched off.
        """
        changes: dict[str, str | int] = {}
        for side, sockets in self._sockets.items():
            if not getattr(config, f"allow_{side}"):
                raise StartupError(
                    f"LISTEN_FDNAMES: there is a socket for {side}, and --allow-{side} is false"
                )
            address, port = _most_exposed(sockets)
            changes[f"{side}_address"] = address
            changes[f"{side}_port"] = port
        return dataclasses.replace(config, **changes) if changes else config  # type: ignore[arg-type]


def _adopt(fd: int, name: str) -> socket.socket:
    try:
        taken = socket.socket(fileno=fd)
    except OSError as error:
        raise StartupError(
            f"LISTEN_FDNAMES: descriptor {fd} ({name}) is no socket: {error.strerror}"
        ) from error
    taken.set_inheritable(False)
    taken.setblocking(False)
    return taken


def _listener(fd: int, name: str) -> socket.socket:
    if name not in SIDES:
        raise StartupError(
            f"LISTEN_FDNAMES: expected one of {', '.join(SIDES)}, got {name!r} for descriptor {fd}"
        )
    taken = _adopt(fd, name)
    families = {socket.AF_INET, socket.AF_INET6}
    if name == "grpc":
        families.add(socket.AF_UNIX)
    is_listening = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if taken.type != socket.SOCK_STREAM or taken.family not in families or not is_listening:
        taken.close()
        kinds = "TCP or Unix-domain" if name == "grpc" else "TCP"
        raise StartupError(
            f"LISTEN_FDNAMES: descriptor {fd} ({name}) is no {kinds} socket that listens"
        )
    return taken


def _most_exposed(sockets: Sequence[socket.socket]) -> tuple[str, int]:
    """Address and port of the socket that most can reach, as the settings have them."""
    addresses = [_address(each) for each in sockets]
    return next((each for each in addresses if not is_loopback(each[0])), addresses[0])


def _address(listener: socket.socket) -> tuple[str, int]:
    name = listener.getsockname()
    if listener.family != socket.AF_UNIX:
        return name[0], name[1]
    if not isinstance(name, str) or not name:
        raise StartupError("LISTEN_FDNAMES: the Unix-domain socket for grpc has no path")
    return f"unix:{name}", 0
