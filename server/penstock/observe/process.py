"""The process itself, under the names every Prometheus dashboard knows."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from penstock.observe.exposition import Family

__all__ = ["process_families"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_families() -> Iterator[Family]:
    """Memory, CPU time and file descriptors."""
    memory = Family("process_resident_memory_bytes", "Resident memory", "gauge")
    resident_pages = Path("/proc/self/statm").read_text().split()[1]
    memory.add({}, int(resident_pages) * _PAGE_BYTES)
    yield memory
    cpu = Family("process_cpu_seconds_total", "User and system CPU time", "counter")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu.add({}, usage.ru_utime + usage.ru_stime)
    yield cpu
    descriptors = Family("process_open_fds", "Open file descriptors", "gauge")
    descriptors.add({}, len(os.listdir("/proc/self/fd")) - 1)  # less the one of listdir itself
    yield descriptors
