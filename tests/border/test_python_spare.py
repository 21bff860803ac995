"""A Python model's worker that was started with the model, and ends before an instance takes it."""

import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.support.models.python_files import IDENTITY, add_python_model
from tests.support.python_core import PACKAGE, load, workers

from penstock import _core
from penstock.errors import CoreError


def watchers() -> int:
    """The core's threads that watch workers: one ends with a worker that is not started again."""
    count = 0
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            count += path.read_text() == "ps-worker\n"
    return count


def end_spare() -> psutil.Process:
    """Kills the worker that waits, and returns it once the core knows."""
    (worker,) = workers()
    before = watchers()
    worker.kill()
    while watchers() == before:
        os.sched_yield()
    return worker


def spec() -> _core.VersionSpec:
    return _core.VersionSpec(
        model_name="m",
        version=1,
        inputs=[_core.InputSpec("INPUT0", "FP32", [-1])],
        outputs=[_core.OutputSpec("OUTPUT0", "FP32", [-1])],
        max_batch_size=1,
    )


def test_spare_worker_that_has_ended_is_replaced(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", IDENTITY)
    engine = _core.Engine(backend_directories=[str(PACKAGE / "backends")])
    model = load(engine, tmp_path)
    ended = end_spare()
    version = engine.create_version(model, spec())
    (worker,) = workers()
    assert worker != ended
    del version, model


def test_replacement_that_describes_another_model_is_refused(tmp_path: Path) -> None:
    directory = add_python_model(tmp_path, "m", IDENTITY)
    engine = _core.Engine(backend_directories=[str(PACKAGE / "backends")])
    model = load(engine, tmp_path)
    end_spare()
    file = directory / "1" / "model.py"
    file.write_text(file.read_text().replace("INPUT0", "INPUT9"))
    with pytest.raises(CoreError, match="the model's file has changed: load it again"):
        engine.create_version(model, spec())
