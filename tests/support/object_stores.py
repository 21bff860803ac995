"""Object stores on loopback: processes that speak the APIs of S3, Google Cloud Storage and Azure.

Moto (S3) is one of this project's packages; the others are fetched into build/ when first asked
for. A store has one bucket; the URIs of its objects say where it is and what opens it.
"""

import base64
import hashlib
import hmac
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from pyarrow import fs as pafs

SECRET = "tell-nobody"
"""In the URIs of stores that take any."""

_FETCHED = Path(__file__).parents[2] / "build" / "object_stores"
_AZURITE = "azurite@3.37.0"
_GCS = "gcp-storage-emulator==2026.7.19"
_BUCKET = "bucket"
_PATIENCE_S = 120.0

# Azurite's one account, which its documentation names.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass(frozen=True)
class Store:
    """A store of objects.

    Attributes:
        uri: of an object, or of a prefix, in a bucket.
        secret: what of these URIs is nobody's business.
    """

    uri_in: Callable[[str, str], str]
    secret: str
    has_empty_uploads: bool = False
    """Whether an upload is an empty object until it ends."""

    def uri(self, name: str, bucket: str = _BUCKET) -> str:
        return self.uri_in(bucket, name)

    def put(self, name: str, write: Callable[[Any], None]) -> None:
        """Makes an object of what is written."""
        filesystem, path = pafs.FileSystem.from_uri(self.uri(name))
        with filesystem.open_output_stream(path) as stream:
            write(stream)


@contextmanager
def logged(command: list[str], sign: str) -> Iterator[re.Match[str]]:
    """Runs a server until the end of the block, from a line of its log that fits the pattern on."""
    found: list[re.Match[str]] = []
    lines: list[str] = []
    is_over = threading.Event()

    def read(stream: Any) -> None:
        for line in stream:
            lines.append(line)
            if not found and (match := re.search(sign, line)):
                found.append(match)
                is_over.set()
        is_over.set()

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        reader = threading.Thread(target=read, args=(process.stdout,))
        reader.start()
        try:
            is_over.wait(_PATIENCE_S)
            assert found, "".join(["not ready:\n", *lines])
            yield found[0]
        finally:
            process.terminate()
            process.wait()
            reader.join()


@contextmanager
def s3() -> Iterator[Store]:
    """Moto's S3."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with logged(command, r"Running on http://(127\.0\.0\.1:\d+)") as line:
        where = urlencode({"endpoint_override": f"http://{line[1]}", "region": "us-east-1"})
        made, path = pafs.FileSystem.from_uri(
            f"s3://loopback:{SECRET}@{_BUCKET}?{where}&allow_bucket_creation=true"
        )
        made.create_dir(path)
        yield Store(
            lambda bucket, name: f"s3://loopback:{SECRET}@{bucket}/{quote(name)}?{where}", SECRET
        )


@contextmanager
def gcs() -> Iterator[Store]:
    """An emulator of Google Cloud Storage, asked without credentials: it takes none."""
    place = _FETCHED / "gcs"
    program = place / "bin" / "gcp-storage-emulator"
    if not program.exists():
        shutil.rmtree(place, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(place))
        _run(str(place / "bin" / "pip"), "install", "--quiet", _GCS)
    port = _free_port()
    command = [str(program), "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    command += ["--default-bucket", _BUCKET]
    with logged(command, "All services started"):
        options = {"scheme": "http", "endpoint_override": f"127.0.0.1:{port}"}
        where = urlencode({**options, "retry_limit_seconds": "20"})
        yield Store(lambda bucket, name: f"gs://anonymous@{bucket}/{quote(name)}?{where}", SECRET)


@contextmanager
def azure() -> Iterator[Store]:
    """Azurite, opened by a shared access signature: pyarrow takes no account's key of a URI."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs npm, which is not here")
    program = _FETCHED / "azure" / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        _run(npm, "install", "--silent", "--prefix", str(_FETCHED / "azure"), _AZURITE)
    command = [str(program), "--blobPort", "0", "--inMemoryPersistence"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    with logged(command, r"successfully listens on http://(127\.0\.0\.1:\d+)") as line:
        signature = _signature()
        where = f"enable_tls=false&{urlencode(signature)}"
        store = Store(
            lambda bucket, name: f"abfs://{AZURE_ACCOUNT}@{line[1]}/{bucket}/{quote(name)}?{where}",
            quote(signature["sig"], safe=""),
            has_empty_uploads=True,
        )
        filesystem, path = pafs.FileSystem.from_uri(store.uri(""))
        filesystem.create_dir(path)
        yield store


def _free_port() -> int:
    """For a server that does not tell which one it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _signature() -> dict[str, str]:
    """A shared access signature of the account, for everything."""
    fields = {"sp": "rwdlacup", "ss": "b", "srt": "sco", "se": "2099-01-01T00:00:00Z"}
    fields |= {"spr": "https,http", "sv": "2019-12-12"}
    order = (fields["sp"], fields["ss"], fields["srt"], "", fields["se"], "", fields["spr"])
    text = "\n".join([AZURE_ACCOUNT, *order, fields["sv"], ""])
    digest = hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256)
    return {**fields, "sig": base64.b64encode(digest).decode()}


def _run(*command: str) -> None:
    """A step of fetching; what it printed is the reason where it fails."""
    _FETCHED.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


STORES: dict[str, Callable[[], AbstractContextManager[Store]]] = {
    "s3": s3,
    "gcs": gcs,
    "azure": azure,
}
