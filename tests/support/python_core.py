"""Python models on the native core by itself."""

import sys
from pathlib import Path

import psutil

import penstock
from penstock import _core

PACKAGE = Path(penstock.__file__).parent


def load(engine: _core.Engine, repository: Path) -> _core.LoadedModel:
    runtime = PACKAGE / "worker" / "__main__.py"
    engine.set_backend_options("python", {"interpreter": sys.executable, "runtime": str(runtime)})
    return engine.load_model(
        backend="python",
        model_name="m",
        version=1,
        path=str(repository / "m" / "1" / "model.py"),
        model_directory=str(repository / "m"),
        parameters={},
    )


def workers() -> list[psutil.Process]:
    """The core's worker processes."""
    children = psutil.Process().children()
    return [each for each in children if str(PACKAGE / "worker" / "__main__.py") in each.cmdline()]
