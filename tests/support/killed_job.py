"""A job in a process that dies at a random point, started anew until it is through."""

import asyncio
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.support.fake_batch import FakeEngine, run

from penstock.jobs.storage import Storage

# Forked from a process that has imported everything and runs no threads: starts in milliseconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.support.killed_job"])


def _run_and_die(
    environment: dict[str, str],
    source: Path | str,
    output: Path | str,
    seed: int,
    least: int,
    options: Any,
) -> None:
    """Kills itself by SIGKILL after a random number of calls into the jobs' code."""
    os.environ.update(environment)  # the process it was forked from may be older than the test's
    left = random.Random(seed).randint(1, least)

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        if event in ("call", "c_call") and "/penstock/jobs/" in frame.f_code.co_filename:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    import threading

    threading.setprofile(count)
    sys.setprofile(count)
    asyncio.run(run(FakeEngine(), source, output, **options))


def run_killed(
    source: Path | str,
    output: Path | str,
    seeds: Iterator[int],
    calls: int,
    halves: Collection[bytes] = (),
    **options: Any,
) -> int:
    """Runs a job until a process gets through; each dies within so many calls or ends.

    Args:
        source: the input.
        output: of the job.
        seeds: of when they die.
        calls: within which the first one dies.
        halves: what a part may hold besides a whole one.
        options: of the job.

    Returns:
        How many died.
    """
    storage = Storage(str(output))
    deaths = 0
    while True:
        arguments = (dict(os.environ), source, output, next(seeds), calls, options)
        process = _PROCESSES.Process(target=_run_and_die, args=arguments)
        process.start()
        process.join()
        if process.exitcode == 0:
            return deaths
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        deaths += 1
        for part in storage.names():  # whole, or not there at all
            if part.startswith("part-") and (content := storage.read(part)) not in halves:
                pq.read_table(pa.BufferReader(content))
        calls = calls * 21 // 20  # it gets through in the end, wherever a part takes longest
