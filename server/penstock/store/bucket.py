"""Bucket: objects under a prefix of S3, Google Cloud Storage or Azure, by obstore.

Credentials are the environment's, as each provider names them (AWS_ACCESS_KEY_ID, ..., or the
machine's role); a URL that holds any is refused, since the database remembers it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from penstock.store.failures import RefusedError, StoreUnavailableError
from penstock.store.location import OBJECT_OPTIONS, scrubbed, without_credentials

__all__ = ["Bucket", "open_bucket"]

_CONNECT_TIMEOUT = timedelta(seconds=5)
# A piece of 16 MiB is one request, and 8 of them share a line: 2 Mbit/s are enough for that.
_REQUEST_TIMEOUT = timedelta(seconds=600)
_RETRY_TIMEOUT = timedelta(seconds=660)
_MAX_RETRIES = 4
_MAX_TEXT = 300


def open_bucket(url: str) -> Bucket:
    """The bucket of a URL that `penstock.store.location.check_objects` has let pass.

    Raises:
        RefusedError: its options make no sense.
    """
    options = dict(parse_qsl(urlsplit(url).query))
    allows_http = options.pop("allow_http", "") == "true"
    config = _config(url, options)
    shown = without_credentials(url)
    try:
        opened = from_url(
            url.partition("?")[0],
            config=config,
            client_options={
                "allow_http": allows_http,
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _REQUEST_TIMEOUT,
            },
            retry_config={"max_retries": _MAX_RETRIES, "retry_timeout": _RETRY_TIMEOUT},
        )
    except (BaseError, ValueError) as error:
        raise RefusedError(f"'{shown}' cannot be opened: {_reason(error)}") from None
    return Bucket(opened, shown)


def _config(url: str, options: Mapping[str, str]) -> Any:
    """What obstore calls a URL's options; what Google's calls the endpoint has another name."""
    names = {"endpoint": "base_url"} if url.startswith("gs://") else {}
    known = ((key, options[key]) for key in OBJECT_OPTIONS if key in options)
    return {names.get(key, key): value for key, value in known}


class Bucket:
    """Whole objects by their keys.

    Threading: thread-safe. Blocking: every method, for half a minute at most where nobody
    answers, and for 11 minutes where the line is slow or breaks.

    Every method raises StoreUnavailableError where the provider does not do what it is asked.
    """

    def __init__(self, store: Any, shown: str) -> None:
        """Borrows a store of obstore's."""
        self._store = store
        self.shown = shown

    def put(self, key: str, content: bytes, *, only_new: bool = False) -> bool:
        """Makes an object, in one request: all of it is there and durable, or nothing is.

        Returns:
            Whether it was made; False only with `only_new`, where one is there.
        """
        with self._failures("write"):
            try:
                mode: Literal["create", "overwrite"] = "create" if only_new else "overwrite"
                obstore.put(self._store, key, content, mode=mode, use_multipart=False)
                return True
            except AlreadyExistsError:
                return False
        raise AssertionError("unreachable")

    def get(self, key: str, limit_bytes: int) -> bytes | None:
        """The content of an object; None where there is none, cut off behind the limit."""
        with self._failures("read"):
            try:
                found = obstore.get(self._store, key)
                if found.meta["size"] <= limit_bytes:
                    return bytes(found.bytes())
            except FileNotFoundError:
                return None
            return bytes(obstore.get_range(self._store, key, start=0, length=limit_bytes + 1))
        raise AssertionError("unreachable")

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below a prefix that ends a part of a path, with their sizes in bytes."""
        with self._failures("list"):
            for some in obstore.list(self._store, prefix):
                yield from ((each["path"], each["size"]) for each in some)

    def older(self, prefix: str, age_s: float) -> Iterator[str]:
        """Keys as `list` has them of what was last written longer ago, by the provider's clock."""
        newest = datetime.now(UTC) - timedelta(seconds=age_s)
        with self._failures("list"):
            for some in obstore.list(self._store, prefix):
                for each in some:
                    if not age_s or each["last_modified"] < newest:
                        yield each["path"]

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        with self._failures("read"):
            try:
                obstore.head(self._store, key)
                return True
            except FileNotFoundError:
                return False
        raise AssertionError("unreachable")

    def remove(self, keys: Sequence[str]) -> None:
        """Removes objects; those that are not there are no fault."""
        with self._failures("remove from"):
            for begin in range(0, len(keys), 1000):
                try:
                    obstore.delete(self._store, keys[begin : begin + 1000])
                except FileNotFoundError:
                    for key in keys[begin : begin + 1000]:
                        self._remove_one(key)

    def move(self, key: str, to: str) -> None:
        """Gives an object another key; nothing where there is none."""
        with self._failures("move in"):
            try:
                obstore.copy(self._store, key, to)
            except FileNotFoundError:
                return
            self._remove_one(key)

    def _remove_one(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            pass

    @contextmanager
    def _failures(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            text = f"cannot {verb} '{self.shown}': {_reason(error)}"
            raise StoreUnavailableError(text) from error


def _reason(error: Exception) -> str:
    """What went wrong, on a line; what the provider dumps of a request is left out."""
    text = " ".join(str(error).split("\n\nDebug source")[0].split())
    return scrubbed(text)[:_MAX_TEXT]
