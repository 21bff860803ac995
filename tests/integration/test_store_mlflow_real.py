"""The registry of a real MLflow server, which has an environment of its own."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from tests.support.cli import penstock
from tests.support.models.onnx_files import add_constant
from tests.support.ports import reserved_port

pytestmark = [pytest.mark.slow, pytest.mark.any_transport, pytest.mark.timeout(900)]

PACKAGES = ("mlflow==3.17.2", "onnx", "onnxruntime")
LOG = """
import sys

import mlflow
import onnx

mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", 0.97)
    mlflow.onnx.log_model(onnx.load(sys.argv[2]), name="model", registered_model_name="add")
client = mlflow.MlflowClient()
client.set_registered_model_alias("add", "champion", 1)
client.set_model_version_tag("add", "1", "stage", "new")
print(run.info.run_id)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has MLflow."""
    folder = tmp_path_factory.mktemp("mlflow")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", *PACKAGES]
    subprocess.run(pip, check=True)
    return folder / "bin" / "python"


@contextmanager
def tracking_server(python: Path, folder: Path) -> Iterator[str]:
    """Its address, once it listens."""
    with reserved_port() as port:
        yield from _serve(python, folder, port)


def _serve(python: Path, folder: Path, port: int) -> Iterator[str]:
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if re.search(r"Uvicorn running on|Listening at", line):
                break
        else:
            raise AssertionError("".join(seen))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.stdout.close()
        process.wait(60)


async def test_registry_comes_with_what_it_knows(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(add_constant(1.0), tmp_path / "m.onnx")
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    with tracking_server(python, tmp_path) as url:
        command = [str(python), "-c", LOG, url, str(tmp_path / "m.onnx")]
        logged = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert logged.returncode == 0, logged.stderr
        run_id = logged.stdout.split()[-1]
        imported = await penstock("import", "mlflow", url)
        assert imported.code == 0, imported.err
        again = await penstock("import", "mlflow", url)
        assert again.code == 0, again.err
    shown = json.loads((await penstock("show", "add@champion", "--json")).out)
    assert (shown["version"], shown["backend"]) == (1, "onnxruntime")
    assert [(each["name"], each["value"]) for each in shown["metrics"]] == [("accuracy", 0.97)]
    assert [each["name"] for each in shown["links"] if each["kind"] == "run"] == [run_id]
    listed = json.loads((await penstock("list", "add", "--json")).out)
    assert len(listed) == 1
