"""Certificates in PEM files, into contexts of OpenSSL: with a sentence where they will not do."""

from __future__ import annotations

import ssl
from pathlib import Path

from penstock.errors import StartupError

__all__ = ["client_context", "load_pair", "load_roots", "signature"]


def client_context(roots: Path | str = "") -> ssl.SSLContext:
    """What a client begins with, which checks names: trusts these, or whom the system does.

    Raises:
        StartupError: there are no certificates in the file.
    """
    try:
        return ssl.create_default_context(cafile=roots or None)
    except (ssl.SSLError, OSError) as error:
        raise _no_roots(roots, error) from error


def load_pair(context: ssl.SSLContext, certificate: Path | str, key: Path | str) -> None:
    """What this side shows.

    Raises:
        StartupError: no files, no PEM, a key of another certificate, or one with a password.
    """
    try:
        # A password, so that a key with one is refused and nobody is asked for it.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise StartupError(
            f"certificate {certificate} and key {key} are no pair: {_reason(error)}"
        ) from error
    except OSError as error:
        pair = f"certificate {certificate} or key {key}"
        raise StartupError(f"cannot read {pair}: {error.strerror}") from error


def load_roots(context: ssl.SSLContext, roots: Path | str) -> None:
    """Who signs what the other side shows.

    Raises:
        StartupError: there are no certificates in the file.
    """
    try:
        context.load_verify_locations(roots)
    except (ssl.SSLError, OSError) as error:
        raise _no_roots(roots, error) from error


def signature(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file: when it was written, its size, which file it is; None = none."""
    try:
        found = path.stat()  # through links, as secrets are mounted in containers
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_roots(roots: Path | str, error: OSError) -> StartupError:
    if isinstance(error, ssl.SSLError):
        return StartupError(f"{roots} holds no certificates: {_reason(error)}")
    return StartupError(f"cannot read {roots}: {error.strerror}")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)
