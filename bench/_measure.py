"""Shared by the benchmarks: a digits repository, servers, h2load, medians with spread."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the repetitions."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{median(self.values):,.2f} ({min(self.values):,.2f}..{max(self.values):,.2f})"


@contextmanager
def digits_repository() -> Iterator[Path]:
    """A model repository with the demo's digits classifier."""
    from penstock.commands import _demo_model

    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        root = Path(folder)
        _demo_model.write_repository(root, _demo_model.train().onnx, 0)
        yield root


@contextmanager
def server(
    command: Sequence[str], ready: str
) -> Iterator[tuple[subprocess.Popen[str], re.Match[str]]]:
    """Runs a server until the block ends; yields once its standard error matches `ready`."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(ready, line):
                yield process, found
                break
        else:
            raise SystemExit(f"{command[0]} ended before it was ready")
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def penstock(repository: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`penstock serve` on free ports; yields the process and its gRPC address."""
    command = [sys.executable, "-m", "penstock", "serve", str(repository), "--grpc-port=0"]
    command += ["--http-port=0", "--metrics-port=0", "--shutdown-grace-secs=0", *flags]
    with server(command, r"is ready: gRPC (\S+?),") as (process, found):
        yield process, found[1]


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of a process, MiB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def grpc_frame(message: bytes) -> bytes:
    """A gRPC message as it goes into an HTTP/2 request body."""
    return struct.pack(">BI", 0, len(message)) + message


def h2load(address: str, path: str, body: Path, requests: int, clients: int, streams: int) -> float:
    """Requests per second of one h2load run; every one must have succeeded on the HTTP level."""
    tool = shutil.which("h2load")
    if tool is None:
        raise SystemExit("h2load is missing: install Debian's nghttp2-client")
    command = [tool, "-n", str(requests), "-c", str(clients), "-m", str(streams), "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    output = subprocess.run(
        [*command, f"http://{address}{path}"], check=True, capture_output=True, text=True
    ).stdout
    rate = re.search(r"finished in [\d.]+\w*, ([\d.]+) req/s", output)
    succeeded = re.search(r"(\d+) succeeded", output)
    if rate is None or succeeded is None or int(succeeded[1]) != requests:
        raise SystemExit(f"h2load did not complete its requests:\n{output}")
    return float(rate[1])
