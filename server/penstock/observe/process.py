"""The process itself, under the names every Prometheus dashboard knows."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from penstock.observe.exposition import Family, Kind

__all__ = ["process_families"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_families() -> Iterator[Family]:
    """Memory, CPU time, threads, file descriptors and the start."""
    virtual_pages, resident_pages = Path("/proc/self/statm").read_text().split()[:2]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    open_fds = len(os.listdir("/proc/self/fd")) - 1  # less the one of listdir itself
    max_fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    samples: tuple[tuple[str, Kind, str, float], ...] = (
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory",
            int(resident_pages) * _PAGE_BYTES,
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory",
            int(virtual_pages) * _PAGE_BYTES,
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "User and system CPU time",
            usage.ru_utime + usage.ru_stime,
        ),
        ("process_threads", "gauge", "Threads", len(os.listdir("/proc/self/task"))),
        ("process_open_fds", "gauge", "Open file descriptors", open_fds),
        ("process_max_fds", "gauge", "File descriptors that may be open", max_fds),
        ("process_start_time_seconds", "gauge", "Start, in Unix time", _STARTED_S),
    )
    for name, kind, text, value in samples:
        family = Family(name, text, kind)
        family.add({}, value)
        yield family


def _start_time_s() -> float:
    """Unix time at which the process began."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot_s = int(after_name[19]) / _TICKS_PER_S
    (boot,) = (
        line.split()[1]
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime ")
    )
    return int(boot) + since_boot_s


_STARTED_S = _start_time_s()
