"""TLS of the gRPC port: certificates from files that are read anew when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

from penstock.access_settings import AccessSettings
from penstock.certificates import load_pair, load_roots, signature
from penstock.errors import StartupError

__all__ = ["CertificateFiles", "check_certificates", "server_credentials"]

_log = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int, int] | None, ...]


class CertificateFiles:
    """The certificate, its key and, for mutual TLS, the certificates that sign those of clients.

    Threading: `first` before gRPC starts, `changed` by its threads, one at a time.
    Blocking: reads small files.
    """

    def __init__(self, certificate: Path, key: Path, roots: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._roots = roots
        self._seen: _Signature = ()

    def first(self) -> Any:
        """What to begin with.

        Raises:
            StartupError: a file that cannot be read, that is no PEM, or a key that does not fit.
        """
        self._seen = self.signature()
        return self._read()

    def changed(self) -> Any:
        """What is to be used from now on; None = what was used before.

        gRPC asks at each handshake. Files that will not do change nothing, and the log says so
        once: they are looked at again when they change again.
        """
        found = self.signature()
        if found == self._seen:
            return None
        self._seen = found
        try:
            configuration = self._read()
        except StartupError as error:
            _log.error("the certificate in use stays in use: %s", error)
            return None
        _log.info("the certificate of the gRPC port was read anew")
        return configuration

    def check(self) -> None:
        """Raises StartupError where `first` would.

        OpenSSL says what gRPC would only log: no PEM, a key of another certificate.
        """
        for path in self._paths():
            _bytes_of(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, self._certificate, self._key)
        if self._roots is not None:
            load_roots(context, self._roots)

    def signature(self) -> _Signature:
        """What changes when one of the files does."""
        return tuple(signature(path) for path in self._paths())

    def _paths(self) -> list[Path]:
        return [each for each in (self._certificate, self._key, self._roots) if each is not None]

    def _read(self) -> Any:
        self.check()
        certificate, key, *roots = [_bytes_of(path) for path in self._paths()]
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], roots[0] if roots else None
        )


def server_credentials(settings: AccessSettings) -> Any:
    """GRPC credentials that follow the files.

    Raises:
        StartupError: the files will not do.
    """
    files = _files(settings)
    return grpc.dynamic_ssl_server_credentials(
        files.first(), files.changed, require_client_authentication=settings.grpc_use_ssl_mutual
    )


def check_certificates(settings: AccessSettings) -> None:
    """Raises StartupError where the files will not do."""
    _files(settings).check()


def _files(settings: AccessSettings) -> CertificateFiles:
    roots = Path(settings.grpc_root_cert) if settings.grpc_use_ssl_mutual else None
    return CertificateFiles(Path(settings.grpc_server_cert), Path(settings.grpc_server_key), roots)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error
