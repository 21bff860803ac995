"""Outputs of a Python model for which this process has no memory to give."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.core_models import request, spec, take
from tests.support.models.python_files import add_python_model
from tests.support.python_core import PACKAGE, load, workers

from penstock import _core
from penstock.errors import Code

SOURCE = """
    import os

    import numpy as np

    class Model:
        inputs = {"INPUT0": ("FP32", (-1,))}
        outputs = {"OUTPUT0": ("FP32", (-1,))}

        def predict(self, batch):
            size = 1 << 20 if os.path.exists("LARGE") else 1
            return {"OUTPUT0": np.zeros((1, size), np.float32)}
"""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open none more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_they_fail_their_batch_alone(tmp_path: Path) -> None:
    large = tmp_path / "large"
    add_python_model(tmp_path, "m", SOURCE.replace("LARGE", str(large)))
    engine = _core.Engine(backend_directories=[str(PACKAGE / "backends")])
    version = engine.create_version(load(engine, tmp_path), spec())
    version.start()
    engine.set_serving("m", [version])

    def run() -> tuple[int, str | None]:
        engine.infer(request(), 0, None, False)
        ((_, code, _, text),) = take(engine, 1)
        return code, text

    assert run() == (0, None)
    before = workers()
    large.touch()
    with no_descriptors():
        code, text = run()
    assert code == Code.RESOURCE_EXHAUSTED
    assert "model 'm', message: the server has no memory for outputs of 4194" in (text or "")
    assert run() == (0, None)
    assert workers() == before
