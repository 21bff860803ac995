"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import penstock

_ROOT = Path(__file__).resolve().parents[2]


def load() -> float:
    """Processes that ran or waited to, in the last minute; read before a run it is others'."""
    return os.getloadavg()[0]


def describe(load_before: float) -> dict[str, str]:
    """Processor, memory, system, versions, and how busy the machine was with other work."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 2**20:.1f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "load before the run": f"{load_before:.2f}",
        "Python": platform.python_version(),
        "penstock": f"{penstock.__version__} ({revision()})",
        "ONNX Runtime": first_version("onnxruntime-gpu", "onnxruntime"),
        "LoadGen": first_version("mlcommons-loadgen"),
    }


def first_version(*distributions: str) -> str:
    """Of the first of them that is installed: one package can come by several names."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def revision() -> str:
    """Of this tree; with "-dirty" where it has changes that are not committed."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "no revision"
