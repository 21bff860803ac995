"""Listening addresses: taken first of all, and never shared with another process."""

from __future__ import annotations

import ipaddress
import socket

from penstock.errors import StartupError

__all__ = ["bind", "check_free", "host_port", "is_loopback"]

_BACKLOG = 1024


def host_port(host: str, port: int) -> str:
    """The address as one word; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this machine reaches what listens there."""
    if host.startswith("unix:"):
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return all(ipaddress.ip_address(each[4][0]).is_loopback for each in found)
    except (OSError, ValueError):
        return False


def bind(host: str, port: int, purpose: str) -> list[socket.socket]:
    """Binds every address that `host` stands for to one port.

    Args:
        host: a name or an address.
        port: 0 = any free one.
        purpose: for the error message, for instance "HTTP".

    Returns:
        Bound sockets, not listening yet; the caller closes them.

    Raises:
        StartupError: no such address, or the port is taken.
    """
    sockets: list[socket.socket] = []
    try:
        for family, *_, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = sockets[0].getsockname()[1] if len(sockets) > 1 else port
            bound.bind((address[0], taken, *address[2:]))
            bound.listen(_BACKLOG)
            bound.setblocking(False)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host name can be like that
        for bound in sockets:
            bound.close()
        reason = error.strerror if isinstance(error, OSError) else "not the name of a host"
        raise StartupError(
            f"cannot listen on {host_port(host, port)} for {purpose}: {reason}"
        ) from error
    return sockets


def check_free(host: str, port: int, purpose: str) -> None:
    """Raises StartupError with the system's reason if `bind` would."""
    for bound in bind(host, port, purpose):
        bound.close()
