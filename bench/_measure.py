"""Shared by the benchmarks: a digits repository, servers, load clients, medians with spread."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ECHO = ROOT / "build/release/bench/micro/http2_echo"
LOAD = ROOT / "build/release/clients/cpp/penstock-load"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_running: list[subprocess.Popen[str]] = []


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
    command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], re.Match[str]]]:
    """Runs a server until the block ends; yields once its standard error matches `ready`."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    _running.append(process)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(ready, line):
                # A pipe that nobody reads would stop a server that has much to log.
                Thread(target=process.stderr.read, daemon=True).start()
                yield process, found
                break
        else:
            raise SystemExit(f"{command[0]} ended before it was ready")
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(timeout=30)
    _running.remove(process)


def end_servers() -> None:
    """Ends every server that runs: for who leaves the process without unwinding."""
    for process in list(_running):
        _end(process)


@contextmanager
def penstock(repository: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`penstock serve` on free ports; yields the process and its gRPC address."""
    command = [sys.executable, "-m", "penstock", "serve", str(repository), "--grpc-port=0"]
    command += ["--http-port=0", "--metrics-port=0", "--shutdown-grace-secs=0", *flags]
    with server(command, r"is ready: gRPC (\S+?),") as (process, found):
        yield process, found[1]


def has_transports() -> bool:
    """Whether this server has more transports than grpcio."""
    from penstock.config import setting_fields

    return any(field.flag == "--transport" for field in setting_fields())


def default_transport() -> str:
    """The quickest one that there is."""
    return "native" if has_transports() else "grpcio"


def transport_flags(transport: str) -> list[str]:
    """Flags of `penstock serve` for a transport."""
    if has_transports():
        return [f"--transport={transport}"]
    if transport != "grpcio":
        raise SystemExit(f"this server has no transport {transport}")
    return []


@contextmanager
def http2_echo() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The bare HTTP/2 echo (bench/micro); yields the process and its address."""
    if not ECHO.exists():
        raise SystemExit(f"{ECHO.relative_to(ROOT)} is missing: `make bench` builds it")
    with server([str(ECHO)], r"echo is ready: (\S+)") as (process, found):
        yield process, found[1]


def free_port() -> int:
    """For a server that takes port 0 for a port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def h2load(
    address: str,
    path: str,
    body: Path,
    requests: int,
    clients: int,
    streams: int,
    log: Path | None = None,
) -> float:
    """Requests per second of one h2load run; every one must have succeeded on the HTTP level.

    In `log`: a line per request, start, HTTP status and microseconds.
    """
    tool = shutil.which("h2load")
    if tool is None:
        raise SystemExit("h2load is missing: install Debian's nghttp2-client")
    command = [tool, "-n", str(requests), "-c", str(clients), "-m", str(streams), "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    if log is not None:
        command.append(f"--log-file={log}")
    output = subprocess.run(
        [*command, f"http://{address}{path}"], check=True, capture_output=True, text=True
    ).stdout
    rate = re.search(r"finished in [\d.]+\w*, ([\d.]+) req/s", output)
    succeeded = re.search(r"(\d+) succeeded", output)
    if rate is None or succeeded is None or int(succeeded[1]) != requests:
        raise SystemExit(f"h2load did not complete its requests:\n{output}")
    return float(rate[1])


def penstock_load(address: str, *flags: str) -> dict[str, Any]:
    """The report of one penstock-load run; every request must have been answered rightly."""
    if not LOAD.exists():
        raise SystemExit(f"{LOAD.relative_to(ROOT)} is missing: `make bench` builds it")
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [str(LOAD), "--address", address, "--json", report.name, *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"penstock-load: {done.stdout}{done.stderr}")
        found: dict[str, Any] = json.loads(Path(report.name).read_text())
        return found
