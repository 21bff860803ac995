"""TLS towards who is asked for metrics: whom the scaler trusts, and what it shows."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from penstock.certificates import client_context, load_pair, signature
from penstock.errors import StartupError

__all__ = ["ReaderTls"]

_Signature = tuple[tuple[int, int, int] | None, ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Files:
    roots: str
    certificate: str
    key: str

    def signature(self) -> _Signature:
        """What changes when one of the files does."""
        names = (self.roots, self.certificate, self.key)
        return tuple(signature(Path(each)) for each in names if each)

    def context(self) -> ssl.SSLContext:
        """What to ask with; StartupError where the files will not do."""
        context = client_context(self.roots)
        if self.certificate:
            load_pair(context, self.certificate, self.key)
        return context


class ReaderTls:
    """The context to ask with, made anew when its files have changed.

    Files that will not do change nothing, and the log says so once.

    Threading: confined to the event loop.
    Blocking: looks at small files, and reads them where they have changed.
    """

    def __init__(self, roots: str = "", certificate: str = "", key: str = "") -> None:
        """Paths of PEM files; "" = the system's roots, and nothing to show.

        Raises:
            StartupError: the files will not do.
        """
        self._files = _Files(roots, certificate, key)
        self._seen = self._files.signature()
        self._latest = self._files.context()

    def context(self) -> ssl.SSLContext:
        """As the files are now, or were when they were good."""
        found = self._files.signature()
        if found != self._seen:
            self._seen = found
            try:
                self._latest = self._files.context()
            except StartupError as error:
                _log.error("the certificates in use stay in use: %s", error)
            else:
                _log.info("the certificates for asking were read anew")
        return self._latest
