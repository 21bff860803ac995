"""Triton's load generator, perf_analyzer: fetched when first asked for, run, its report read.

The binary lies inside an old tritonclient wheel, which is unpacked and never installed. It wants
libcudart, also on a machine without a GPU, and Debian's libb64-0d.
"""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "perf_analyzer"
WHEELS = ["tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.9.79"]
BINARY = FOLDER / "tritonclient-2.50.0.data" / "data" / "bin" / "perf_analyzer"
LIBRARIES = FOLDER / "nvidia" / "cuda_runtime" / "lib"

_TIMEOUT_S = 300
_BLOCK = re.compile(
    r"Request (?:count|Rate|concurrency).*?"
    r"Throughput: (?P<throughput>[\d.]+) infer/sec.*?"
    r"Server:\s+Inference count: (?P<rows>\d+)\s+Execution count: (?P<executions>\d+)\s+"
    r"Successful request count: (?P<requests>\d+)\s+"
    r"Avg request latency: (?P<latency_us>\d+) usec \(overhead (?P<overhead_us>\d+) usec \+ "
    r"queue (?P<queue_us>\d+) usec \+ compute input (?P<input_us>\d+) usec \+ "
    r"compute infer (?P<infer_us>\d+) usec \+ compute output (?P<output_us>\d+) usec\)",
    re.DOTALL,
)


class DownloadError(Exception):
    """The wheels cannot be had here."""


@dataclass(frozen=True)
class Measurement:
    """One load of a run: the client's throughput and what the server counted meanwhile."""

    throughput: float
    rows: int
    executions: int
    requests: int
    latency_us: int
    parts_us: tuple[int, ...]


def fetch() -> None:
    """Downloads and unpacks into build/, once.

    Raises:
        DownloadError: pip could not get the wheels.
    """
    if BINARY.exists() and LIBRARIES.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(FOLDER), *WHEELS]
    found = subprocess.run(pip, capture_output=True, text=True)
    if found.returncode != 0:
        raise DownloadError(found.stderr.strip().splitlines()[-1])
    for wheel in FOLDER.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(FOLDER)
    BINARY.chmod(0o755)


def run(url: str, model: str, *flags: str, protocol: str = "grpc") -> list[Measurement]:
    """Runs to the end, in windows of so many requests and content with any spread.

    Returns:
        One measurement per load.
    """
    brief = ["--measurement-mode", "count_windows", "--measurement-request-count", "50"]
    brief += ["--stability-percentage", "999"]
    command = [str(BINARY), "-i", protocol, "-u", url, "-m", model, *brief, *flags]
    found = subprocess.run(
        command,
        env={**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"
    measurements = [_measurement(block.groupdict()) for block in _BLOCK.finditer(found.stdout)]
    assert measurements, found.stdout
    return measurements


def _measurement(fields: dict[str, str]) -> Measurement:
    names = ("overhead_us", "queue_us", "input_us", "infer_us", "output_us")
    return Measurement(
        throughput=float(fields["throughput"]),
        rows=int(fields["rows"]),
        executions=int(fields["executions"]),
        requests=int(fields["requests"]),
        latency_us=int(fields["latency_us"]),
        parts_us=tuple(int(fields[name]) for name in names),
    )
