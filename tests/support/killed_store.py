"""A push and a deployment in a process that kills itself at a random point."""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from tests.support.stores import push

from penstock.store.cache import ArtifactCache
from penstock.store.records import DeployStatus, Reference
from penstock.store.store import open_store

# Forked from a process that has imported everything and runs no threads: starts in milliseconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.support.killed_store"])


def push_and_deploy(url: str, cache_root: Path, seed: int) -> None:
    """Pushes a version, points the alias to it, fetches it as a server does, and reports it."""
    content = random.Random(seed).randbytes(5000)
    with open_store(url, may_create=True, actor=f"pusher {seed}") as store:
        record = push(store, "m", content, tags={"seed": str(seed)})
        store.alias("m", "champion", record.version)
        deployment = store.deploy(Reference("m", alias="champion"), "prod")
        cache = ArtifactCache(cache_root, 50_000)
        cache.open()
        cache.fetch(record, store.artifacts)
        store.report(deployment.id, "server", DeployStatus.SERVING, digest=record.digest)
        cache.close()


def _run_and_die(
    environment: dict[str, str],
    url: str,
    cache_root: Path,
    seed: int,
    limit: int,
    counted: Path | None,
) -> None:
    os.environ.update(environment)  # the process it was forked from may be older than the test's
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if calls == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    push_and_deploy(url, cache_root, seed)
    sys.setprofile(None)
    if counted is not None:
        counted.write_text(str(calls))


def count_calls(url: str, cache_root: Path, counted: Path) -> int:
    """Does it once to the end; how many calls that takes."""
    assert _run(url, cache_root, 0, 0, counted) == 0
    return int(counted.read_text())


def run_killed(url: str, cache_root: Path, seed: int, calls: int) -> bool:
    """Does it, and dies after a random number of calls; whether it did not get through."""
    code = _run(url, cache_root, seed, random.Random(seed).randint(1, calls), None)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _run(*arguments: Any) -> int | None:
    process = _PROCESSES.Process(target=_run_and_die, args=(dict(os.environ), *arguments))
    process.start()
    process.join()
    return process.exitcode
