"""A Python model with locked requirements: refused, prepared, then run in its environment."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.models.python_files import add_python_model
from tests.support.server_process import served

import penstock_client

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.lock"

MODEL = """
    import sys
    import numpy as np
    class Model:
        inputs = {"x": ("INT32", (1,))}
        outputs = {"prefix": (bytes, (1,))}
        def predict(self, batch):
            return {"prefix": np.array([[sys.prefix]] * len(batch["x"]))}
"""


def numpy_lock() -> str:
    """This project's own pin of numpy, with its hashes."""
    found = re.search(r"^numpy==(?:.*\\\n)*.*$", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found is not None
    return found[0] + "\n"


def check(repository: Path, environments: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "penstock", "check", str(repository), *flags]
    command += ["--python-environments", str(environments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_locked_requirements_are_prepared_once_and_run_in(tmp_path: Path) -> None:
    repository, environments = tmp_path / "models", tmp_path / "environments"
    model = add_python_model(repository, "m", MODEL)
    (model / "requirements.lock").write_text(numpy_lock())
    refused = check(repository, environments)
    assert refused.returncode == 1
    assert "penstock check --prepare" in refused.stderr
    prepared = check(repository, environments, "--prepare")
    assert prepared.returncode == 0, prepared.stderr
    with (
        served(repository, "--python-environments", str(environments)) as server,
        penstock_client.Client(server.grpc) as client,
    ):
        result = client.infer("m", {"x": np.array([[0]], np.int32)})
    prefix = Path(result["prefix"].item().decode())
    assert prefix.parent == environments
