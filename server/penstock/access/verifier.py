"""Tokens that the core does not know: verified once, and the outcome told to the core.

The keys come from a file or from a URL. While the URL does not answer, the last good set serves
on; without any, tokens are refused UNAVAILABLE, which says to clients that they may try again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Protocol

from penstock.access.jwks import PublicKey
from penstock.access.tokens import Claims, TokenRules, UnknownKeyError, read_token
from penstock.core import Caller, Principal
from penstock.errors import (
    ConfigError,
    CoreError,
    ResourceExhaustedError,
    UnavailableError,
)

__all__ = ["KeySet", "TokenVerifier"]

_log = logging.getLogger(__name__)

# A good token is verified again after this time, so that a key that was withdrawn ends it.
_MAX_TRUST_S = 300.0
# A bad one is refused without looking for this time.
_REFUSAL_S = 5.0
_UNAVAILABLE_S = 1.0
_MAX_PENDING = 1024
# Tokens with unknown keys cost a fetch no more often than this.
_MIN_FETCH_INTERVAL_S = 10.0
# A source is given up on after this time; each of its answers' parts has less (jwks.py).
_MAX_FETCH_S = 10.0


class TokenAccess(Protocol):
    """What of `penstock.core.Access` is asked and told."""

    def admit_verification(self, caller: Caller) -> None:
        """Raises CoreError where the caller's connection may not have tokens verified now."""

    def accept(self, caller: Caller, principal: Principal, valid_s: float) -> None:
        """The token is good."""

    def refuse(self, caller: Caller, code: int, reason: str, valid_s: float) -> None:
        """The token is bad."""

    def forget_tokens(self) -> None:
        """All are to be verified anew."""


class KeySet:
    """The keys of now, and how to get newer ones.

    Threading: confined to the event loop; fetching is done in a thread.
    """

    def __init__(
        self,
        fetch: Callable[[], Mapping[str, PublicKey]],
        changed: Callable[[], None],
        min_interval_s: float = _MIN_FETCH_INTERVAL_S,
    ) -> None:
        """`fetch` blocks and raises ConfigError; `changed` is called when the keys are others."""
        self.keys: Mapping[str, PublicKey] = {}
        self._fetch = fetch
        self._changed = changed
        self._min_interval_s = min_interval_s
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._is_failing = False
        self._thread: Thread | None = None

    async def refresh(self, *, even_if_recent: bool = False) -> None:
        """Fetches, once for all who ask meanwhile, and not again right after; never raises."""
        if self._fetching is None:
            is_recent = time.monotonic() - self._fetched_at < self._min_interval_s
            if is_recent and not even_if_recent:
                return
            self._fetching = asyncio.create_task(self._refresh())
        await asyncio.shield(self._fetching)

    async def _refresh(self) -> None:
        try:
            self.replace(await self._fetched())
        except ConfigError as error:
            if not self._is_failing:
                _log.error("no newer keys for tokens, those at hand stay: %s", error)
            self._is_failing = True
        except Exception:  # a defect: it must not end what fetches from time to time
            _log.exception("fetching the keys for tokens failed; those at hand stay")
        else:
            if self._is_failing:
                _log.info("keys for tokens can be fetched again")
            self._is_failing = False
        finally:
            self._fetched_at = time.monotonic()
            self._fetching = None

    async def _fetched(self) -> Mapping[str, PublicKey]:
        """What a fetch brings within a bounded time, however slowly its source trickles.

        In a thread that nobody waits for at the process's end.
        """
        if self._thread is not None and self._thread.is_alive():
            raise ConfigError(["the fetch before is still waiting for its answer"])
        fetched: Future[Mapping[str, PublicKey]] = Future()
        fetched.set_running_or_notify_cancel()  # who gives up waiting does not cancel it

        def fetch() -> None:
            try:
                keys = self._fetch()
            except Exception as error:  # for whoever waits
                fetched.set_exception(error)
            else:
                fetched.set_result(keys)

        self._thread = Thread(target=fetch, name="ps-keys", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(_MAX_FETCH_S):
                return await asyncio.wrap_future(fetched)
        except TimeoutError:
            raise ConfigError([f"no whole answer within {_MAX_FETCH_S:g} s"]) from None

    def replace(self, keys: Mapping[str, PublicKey]) -> None:
        """From now on these keys."""
        is_other = _fingerprint(keys) != _fingerprint(self.keys)
        self.keys = keys
        if is_other:
            self._changed()


def _fingerprint(keys: Mapping[str, PublicKey]) -> Mapping[str, tuple[str, object]]:
    def numbers(key: PublicKey) -> object:
        public = getattr(key.key, "public_numbers", None)
        return public() if public else key.key.public_bytes_raw()

    return {name: (key.algorithm, numbers(key)) for name, key in keys.items()}


class TokenVerifier:
    """Verifies each token once for all calls that bring it.

    Threading: confined to the event loop; signatures are verified in a thread of its own.
    Ownership: its thread; borrows the keys and the core's access.
    Lifecycle: verify..., close.
    """

    def __init__(
        self,
        access: TokenAccess,
        keys: KeySet,
        rules: TokenRules,
        principal: Callable[[Claims], Principal],
    ) -> None:
        """`principal` says what a token allows."""
        self._access = access
        self._keys = keys
        self._rules = rules
        self._principal = principal
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ps-tokens")

    async def verify(self, caller: Caller) -> None:
        """Returns when the core knows the outcome.

        Raises:
            ResourceExhaustedError: too many others are being verified, or the caller's connection
                brings too many tokens that are not good.
        """
        task = self._pending.get(caller.credential)
        if task is None:
            if len(self._pending) >= _MAX_PENDING:
                raise ResourceExhaustedError(
                    "too many tokens are being verified; try again in 1000 ms", 1000
                )
            self._access.admit_verification(caller)
            task = asyncio.create_task(self._verify(caller))
            self._pending[caller.credential] = task
        await asyncio.shield(task)  # a caller that leaves takes it from nobody else

    def close(self) -> None:
        """Ends the thread; what is under way in it is finished."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _verify(self, caller: Caller) -> None:
        try:
            claims = await self._read(caller.credential)
        except CoreError as error:
            is_refused = not isinstance(error, UnavailableError)
            valid_s = _REFUSAL_S if is_refused else _UNAVAILABLE_S
            self._access.refuse(caller, error.code, error.message, valid_s)
        else:
            valid_s = min(claims.expires_at - time.time(), _MAX_TRUST_S)
            self._access.accept(caller, self._principal(claims), valid_s)
        finally:
            del self._pending[caller.credential]

    async def _read(self, token: str) -> Claims:
        if not self._keys.keys:
            await self._keys.refresh()
        try:
            return await self._read_with_keys_at_hand(token)
        except UnknownKeyError:
            await self._keys.refresh()
            return await self._read_with_keys_at_hand(token)

    async def _read_with_keys_at_hand(self, token: str) -> Claims:
        if not self._keys.keys:
            raise UnavailableError(
                "tokens cannot be verified now: this server has not got the keys for them yet"
            )
        loop = asyncio.get_running_loop()
        while True:
            keys = self._keys.keys
            claims = await loop.run_in_executor(self._thread, read_token, token, keys, self._rules)
            if keys is self._keys.keys:  # else its key may have been withdrawn meanwhile
                return claims
