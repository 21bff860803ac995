"""What the settings say of callers, brought to the core and kept up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from penstock.access import jwks
from penstock.access.jwks import fetch_keys, is_forgeable, is_url
from penstock.access.keys import read_keys
from penstock.access.tokens import Claims, TokenRules
from penstock.access.verifier import KeySet, TokenVerifier
from penstock.access.watch import FileWatch
from penstock.access_settings import AccessSettings
from penstock.core import Access, AccessPolicy, Principal
from penstock.errors import ConfigError, StartupError

__all__ = ["Door", "access_policy"]

_log = logging.getLogger(__name__)


def access_policy(settings: AccessSettings) -> AccessPolicy:
    """What the core asks of callers."""
    return AccessPolicy(
        restricted=settings.restricted_groups(),
        needs_identity=settings.needs_identity,
        open_groups=settings.unauthenticated_group,
        has_tokens=bool(settings.jwks),
        connection_rate=settings.connection_requests_per_second,
        connection_burst=settings.connection_request_burst,
    )


class Door:
    """The files of keys and the keys for tokens, read and kept up to date.

    Threading: confined to the event loop.
    Ownership: its watches and the verifier; borrows the core's access.
    Lifecycle: constructed -> start -> stop; stop also after a failed start.
    """

    def __init__(self, settings: AccessSettings, access: Access) -> None:
        self._settings = settings
        self._access = access
        self._watches: list[FileWatch] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token_keys: KeySet | None = None
        self.verifier: TokenVerifier | None = None
        if settings.api_keys_file:
            self._watch(Path(settings.api_keys_file), self._read_keys)
        if settings.jwks:
            self._make_verifier(settings.jwks)

    async def start(self) -> None:
        """Reads everything; StartupError when a file will not do. A URL may be down."""
        self._loop = asyncio.get_running_loop()
        try:
            for watch in self._watches:
                watch.load()
        except ConfigError as error:
            raise StartupError(str(error)) from error
        for watch in self._watches:
            watch.start()
        if self._token_keys is not None and is_url(self._settings.jwks):
            if is_forgeable(self._settings.jwks):
                _log.warning("--jwks comes over plain http: who is on the way can forge keys")
            self._refreshing = asyncio.create_task(self._refresh(self._token_keys))

    async def stop(self) -> None:
        """Ends the watches and the verifier."""
        for watch in self._watches:
            await watch.stop()
        if self._refreshing is not None:
            self._refreshing.cancel()  # it may wait for a URL that does not answer
            await asyncio.wait({self._refreshing})
        if self.verifier is not None:
            self.verifier.close()

    def _watch(self, path: Path, read: Callable[[], None]) -> None:
        self._watches.append(FileWatch(path, self._settings.access_reload_secs, read))

    def _on_loop(self, function: Callable[..., None], *args: object) -> None:
        """Not in the thread of a watch: between a call's verification and its admission."""
        assert self._loop is not None, "Door.start comes first"
        self._loop.call_soon_threadsafe(function, *args)

    def _read_keys(self) -> None:
        keys = read_keys(
            Path(self._settings.api_keys_file),
            per_second=self._settings.key_requests_per_second,
            burst=self._settings.key_request_burst,
        )
        self._access.set_keys(keys)

    def _make_verifier(self, source: str) -> None:
        fetch = (
            partial(fetch_keys, source) if is_url(source) else partial(jwks.read_keys, Path(source))
        )
        keys = self._token_keys = KeySet(fetch, self._access.forget_tokens)
        if not is_url(source):
            self._watch(Path(source), lambda: self._on_loop(keys.replace, fetch()))
        rules = TokenRules(
            algorithms=self._settings.jwt_algorithm,
            issuer=self._settings.jwt_issuer,
            audiences=self._settings.jwt_audience,
            leeway_s=self._settings.jwt_leeway_secs,
        )
        self.verifier = TokenVerifier(self._access, keys, rules, self._principal)

    def _principal(self, claims: Claims) -> Principal:
        return Principal(
            name=f"token of '{claims.subject}'",
            groups=self._settings.jwt_group,
            per_second=self._settings.key_requests_per_second,
            burst=self._settings.key_request_burst,
        )

    async def _refresh(self, keys: KeySet) -> None:
        """Fetches at once and from time to time; the server does not wait for it to start."""
        never = asyncio.Event()
        while True:
            await keys.refresh(even_if_recent=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(never.wait(), self._settings.jwks_refresh_secs)
