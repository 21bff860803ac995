"""How a client proves who it is, and makes sure whom it talks to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

Pem = str | Path | bytes
"""PEM text as bytes, or the file that holds it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS, and mutual TLS where the client has a certificate of its own.

    Attributes:
        root_ca: Who signs the server's certificate; None for the authorities gRPC comes with.
        certificate: The client's certificate chain; needs `key`.
        key: Its private key.
        server_name: The name in the server's certificate, where it is not the host of the url.
    """

    root_ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses half a pair."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Tls: a certificate needs its key, and a key its certificate")

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC takes.

        Raises:
            ValueError: A file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            _pem(self.root_ca), _pem(self.key), _pem(self.certificate)
        )

    def options(self) -> tuple[tuple[str, Any], ...]:
        """Channel arguments."""
        if self.server_name is None:
            return ()
        return (("grpc.ssl_target_name_override", self.server_name),)


def secured(
    tls: Tls | None,
    credentials: grpc.ChannelCredentials | None,
    options: Any,
) -> tuple[grpc.ChannelCredentials | None, Any]:
    """Credentials and channel options of a client; `options` win.

    Raises:
        ValueError: Both kinds of credentials are given, or a file cannot be read.
    """
    if tls is None:
        return credentials, options
    if credentials is not None:
        raise ValueError("give tls or credentials, not both")
    return tls.credentials(), (*tls.options(), *options)


def with_token(
    headers: Mapping[str, str | bytes] | None, token: str | None
) -> Mapping[str, str | bytes] | None:
    """The headers with a key or token among them.

    Raises:
        ValueError: No header can hold the token; it is not told.
    """
    if token is None:
        return headers
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("token: expected printable ASCII without spaces")
    return {**(headers or {}), "authorization": f"Bearer {token}"}


def _pem(source: Pem | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {source}: {error.strerror}") from None
