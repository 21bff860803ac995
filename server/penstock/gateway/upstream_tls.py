"""What the gateway trusts and shows when it calls its servers: files that are read anew."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.access.watch import FileWatch
from penstock.certificates import load_pair, load_roots
from penstock.errors import ConfigError, StartupError
from penstock.gateway.config import GatewayConfig
from penstock_gateway.grpc_upstream import channel_credentials

__all__ = ["UpstreamTls"]


class UpstreamTls:
    """Credentials that follow the files, which are looked at as often as servers are asked.

    Files that will not do change nothing, and the log says so once. A pair whose halves are written
    one after the other is taken when the second is there.

    Threading: confined to the event loop; files are read in a thread.
    Ownership: the watch.
    Lifecycle: made -> start -> stop; stop alone is fine.

    Attributes:
        credentials: as the files are, or were when they were good.
    """

    def __init__(self, config: GatewayConfig) -> None:
        """Raises StartupError where the files will not do."""
        names = ("upstream_root_cert", "upstream_client_cert", "upstream_client_key")
        self._roots, self._certificate, self._key = (
            Path(text) if (text := getattr(config, name)) else None for name in names
        )
        self.credentials: Any = None
        self._tell: Callable[[Any], None] = lambda _credentials: None
        paths = [each for each in (self._roots, self._certificate, self._key) if each is not None]
        self._watch = FileWatch(paths, config.upstream_probe_secs, self._read)
        try:
            self._watch.load()
        except ConfigError as error:
            raise StartupError(str(error)) from None

    def start(self, tell: Callable[[Any], None]) -> None:
        """Begins to watch; `tell` is given credentials when they change, on the event loop."""
        loop = asyncio.get_running_loop()

        def on_loop(credentials: Any) -> None:
            loop.call_soon_threadsafe(tell, credentials)

        self._tell = on_loop
        self._watch.start()

    async def stop(self) -> None:
        """Ends the watch."""
        await self._watch.stop()

    def _read(self) -> None:
        contents = self._contents()
        self._check()
        if self._contents() != contents:  # what was checked is not what was read
            raise ConfigError(["the upstream's certificates changed while they were read"])
        self.credentials = channel_credentials(*contents)
        self._tell(self.credentials)

    def _contents(self) -> list[bytes | None]:
        return [_bytes_of(each) for each in (self._roots, self._key, self._certificate)]

    def _check(self) -> None:
        """Raises ConfigError for what gRPC would only log: OpenSSL says what it is."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self._roots is not None:
                load_roots(context, self._roots)
            if self._certificate is not None and self._key is not None:
                load_pair(context, self._certificate, self._key)
        except StartupError as error:
            raise ConfigError([str(error)]) from None


def _bytes_of(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError([f"cannot read {path}: {error.strerror}"]) from None
