"""Stores whose artifacts are in a bucket of Moto's S3, on loopback.

Moto, since it speaks S3's own API to any client, conditional writes and listing in pages included,
comes as a Python package that the tests have already, and needs neither a network nor a binary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import pytest
from tests.support.object_stores import s3


@dataclass
class S3:
    """A bucket; each `place` is a prefix of its own.

    Attributes:
        address: host:port of the server.
    """

    address: str
    places: int = 0

    def place(self) -> str:
        """The URL of a prefix where nothing is yet."""
        self.places += 1
        where = {"endpoint": f"http://{self.address}", "region": "us-east-1", "allow_http": "true"}
        return f"s3://bucket/store-{self.places}?{urlencode(where)}"

    def store_url(self, database: str) -> str:
        """Of a store with this database and artifacts of its own in the bucket."""
        joint = "&" if "?" in database else "?"
        return f"{database}{joint}artifacts={quote(self.place(), safe='')}"


@contextmanager
def credentials() -> Iterator[None]:
    """Moto takes any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "loopback")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tell-nobody")
        yield


@pytest.fixture(scope="session")
def bucket() -> Iterator[S3]:
    """One server for the whole run, and credentials for it in the environment."""
    with s3() as store, credentials():
        address = store.uri("").rpartition("endpoint_override=http%3A%2F%2F")[2].partition("&")[0]
        yield S3(address.replace("%3A", ":"))
