"""Stores whose artifacts are in a bucket on loopback: Moto's S3, or Azurite.

Moto, since it speaks S3's own API to any client, conditional writes and listing in pages included,
comes as a Python package that the tests have already, and needs neither a network nor a binary.
Azurite is Azure's own emulator; it needs npm, so what runs on it is slow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode, urlsplit

import pytest
from tests.support.object_stores import AZURE_ACCOUNT, AZURE_KEY, STORES

KINDS = ("s3", pytest.param("azure", marks=pytest.mark.slow))
_SECRET = "tell-nobody"


@dataclass
class Buckets:
    """A server with a bucket; each `place` is a prefix of its own.

    Attributes:
        kind: s3 or azure.
        address: host:port of the server.
    """

    kind: str
    address: str
    places: int = 0

    @property
    def secret(self) -> str:
        """What the environment holds, and nothing else may."""
        return _SECRET if self.kind == "s3" else AZURE_KEY

    def place(self, bucket: str = "bucket") -> str:
        """The URL of a prefix where nothing is yet."""
        self.places += 1
        scheme, path = ("s3", "") if self.kind == "s3" else ("az", f"/{AZURE_ACCOUNT}")
        where = {"endpoint": f"http://{self.address}{path}", "allow_http": "true"}
        where |= {"region": "us-east-1"} if self.kind == "s3" else {}
        return f"{scheme}://{bucket}/store-{self.places}?{urlencode(where)}"

    def store_url(self, database: str) -> str:
        """Of a store with this database and artifacts of its own in the bucket."""
        joint = "&" if "?" in database else "?"
        return f"{database}{joint}artifacts={quote(self.place(), safe='')}"


@contextmanager
def credentials(kind: str) -> Iterator[None]:
    """In the environment; Moto takes any."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "s3":
            patch.setenv("AWS_ACCESS_KEY_ID", "loopback")
            patch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
        else:
            patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT)
            patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)
        yield


@contextmanager
def serving_buckets(kind: str) -> Iterator[Buckets]:
    """A server of that kind, and credentials for it in the environment."""
    with STORES[kind]() as store, credentials(kind):
        uri = unquote(store.uri(""))
        if kind == "s3":
            address = uri.rpartition("endpoint_override=http://")[2].partition("&")[0]
        else:
            address = urlsplit(uri).netloc.rpartition("@")[2]
        yield Buckets(kind, address)


@pytest.fixture(scope="session")
def bucket() -> Iterator[Buckets]:
    """Of S3, one server for the whole run."""
    with serving_buckets("s3") as buckets:
        yield buckets
