"""Object stores on loopback, each a process of its own that speaks the real API."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pyarrow import fs as pafs

KEY, SECRET = "loopback", "tell-nobody"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class S3:
    """A store with one bucket; keys and the server's address are in its URIs.

    Attributes:
        address: host:port.
        bucket: its name.
    """

    address: str
    bucket: str = "bucket"

    def uri(self, name: str) -> str:
        """Of an object, or a prefix."""
        where = f"endpoint_override={quote(f'http://{self.address}', safe='')}&region=us-east-1"
        return f"s3://{KEY}:{SECRET}@{self.bucket}/{name}?{where}"

    def filesystem(self) -> Any:
        return pafs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            endpoint_override=self.address,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )


@contextmanager
def logged(command: list[str], sign: str, **settings: str) -> Iterator[re.Match[str]]:
    """Runs a server until the end of the block, from a line of its log that fits the pattern on."""
    found: list[re.Match[str]] = []
    is_over = threading.Event()
    lines: list[str] = []

    def read(stream: Any) -> None:
        for line in stream:
            lines.append(line)
            if not found and (match := re.search(sign, line)):
                found.append(match)
                is_over.set()
        is_over.set()

    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **settings},
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
def s3_server() -> Iterator[S3]:
    """Moto's S3, with the bucket."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with logged(command, r"Running on http://(127\.0\.0\.1:\d+)") as line:
        store = S3(line[1])
        store.filesystem().create_dir(store.bucket)
        yield store
