"""TLS of HTTP and metrics: certificates from files that are read anew when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from penstock.certificates import load_pair, load_roots
from penstock.errors import StartupError
from penstock.frontend.tls import CertificateFiles
from penstock.http_settings import HttpSettings, MetricsTlsSettings

__all__ = ["HANDSHAKE_S", "HttpTls", "http_tls", "metrics_tls"]

HANDSHAKE_S = 10.0
"""For a client to shake hands."""

_log = logging.getLogger(__name__)


class HttpTls:
    """The context to listen with, which chooses for each handshake what the files hold by then.

    Files that will not do change nothing, and the log says so once.

    Threading: confined to the event loop, on which handshakes are.
    Lifecycle: `context` before the port is listened on.
    Blocking: looks at small files, and reads them where they have changed.
    """

    def __init__(
        self, certificate: Path, key: Path, roots: Path | None = None, *, purpose: str = "HTTP"
    ) -> None:
        """Reads nothing yet.

        Args:
            certificate: PEM file of the chain.
            key: PEM file of its key.
            roots: who signs the certificates that clients must have; None = they need none.
            purpose: of the port, for the log.
        """
        self._purpose = purpose
        self._certificate = certificate
        self._key = key
        self._roots = roots
        self._files = CertificateFiles(certificate, key, roots)
        self._seen = self._files.signature()
        self._latest: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """What the listening socket begins each handshake with.

        Raises:
            StartupError: the files will not do.
        """
        self._seen = self._files.signature()
        self._latest = self._made()
        listening = self._made()
        listening.sni_callback = self._choose  # comes with every handshake, named or not
        return listening

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _of: ssl.SSLContext
    ) -> None:
        self._look()
        assert self._latest is not None
        connection.context = self._latest

    def _look(self) -> None:
        found = self._files.signature()
        if found == self._seen:
            return
        self._seen = found
        try:
            self._latest = self._made()
        except StartupError as error:
            _log.error("the certificate in use stays in use: %s", error)
        else:
            _log.info("the certificate of the %s port was read anew", self._purpose)

    def _made(self) -> ssl.SSLContext:
        self._files.check()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        load_pair(context, self._certificate, self._key)
        if self._roots is not None:
            _ask_for_certificate(context, self._roots)
        return context


def http_tls(settings: HttpSettings) -> HttpTls | None:
    """Of the HTTP port, as the settings have it; None = plain HTTP."""
    if not settings.http_use_ssl:
        return None
    roots = Path(settings.http_root_cert) if settings.http_use_ssl_mutual else None
    return HttpTls(Path(settings.http_server_cert), Path(settings.http_server_key), roots)


def metrics_tls(settings: MetricsTlsSettings) -> HttpTls | None:
    """Of the metrics port, likewise."""
    if not settings.metrics_use_ssl:
        return None
    roots = Path(settings.metrics_root_cert) if settings.metrics_use_ssl_mutual else None
    pair = Path(settings.metrics_server_cert), Path(settings.metrics_server_key)
    return HttpTls(*pair, roots, purpose="metrics")


def _ask_for_certificate(context: ssl.SSLContext, roots: Path) -> None:
    """Each connection shows its certificate anew: a session that is resumed would not."""
    load_roots(context, roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # 1.2 resumes from a cache that has no switch
    context.num_tickets = 0
