"""Runs the example of README.md's section on batch prediction, as it is written."""

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from penstock.commands import _demo_model

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text().partition("## Batch prediction\n")[2].partition("\n## ")[0]


async def test_example_runs_as_written(tmp_path: Path) -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    (shell,) = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    digits = _demo_model.train()
    _demo_model.write_repository(tmp_path / "models", digits.onnx, 0)
    said = [await run(tmp_path, "-c", script)]
    for line in shell.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "penstock"
        said.append(await run(tmp_path, "-m", "penstock", *arguments))
    assert "X       FP32 [64]   X         list<element: float>" in said[1]
    assert said[2].startswith("done: 1797 rows in 1 parts; ")
    table = pq.read_table(tmp_path / "labels" / "part-00000.parquet")
    assert table.column_names == ["id", "label", "probabilities"]
    assert table["id"].to_pylist() == list(range(1797))
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert manifest["counts"]["rows_out"] == 1797


async def run(folder: Path, *arguments: str) -> str:
    """What the interpreter prints, run there; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
