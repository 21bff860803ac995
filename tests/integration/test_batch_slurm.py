"""The Slurm array of server/README.md, on a cluster of this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.slurm import lacks, slurm_cluster

from penstock.commands import _demo_model

pytestmark = [
    pytest.mark.any_transport,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacks()), reason=lacks() or "Slurm is here"),
]

README = Path(__file__).parents[2] / "server" / "README.md"
(SCRIPT,) = re.findall(r"^```sh\n(#!/bin/sh\n#SBATCH.*?)^```$", README.read_text(), re.M | re.S)


def test_array_of_shards_makes_one_output(tmp_path: Path) -> None:
    digits = _demo_model.train()
    _demo_model.write_repository(tmp_path / "models", digits.onnx, 0)
    rows = 1000
    images = [digits.images[row % len(digits.images)] for row in range(rows)]
    pq.write_table(pa.table({"X": images}), tmp_path / "images.parquet")
    (tmp_path / "job.sh").write_text(SCRIPT)
    (tmp_path / "slurm").mkdir()
    with slurm_cluster(tmp_path / "slurm") as environment:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # Commands ask until the daemons that have just been started answer.
        done = subprocess.run(
            ["sbatch", "--wait", "job.sh"],
            cwd=tmp_path,
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
        )
    said = "".join(log.read_text() for log in tmp_path.glob("slurm-*.out"))
    assert done.returncode == 0, done.stderr + said
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert manifest["counts"]["rows_out"] == rows
    assert len(manifest["outputs"]) == 5
    tables = [pq.read_table(part) for part in sorted((tmp_path / "labels").glob("part-*"))]
    labels = pa.concat_tables(tables)["label"].to_pylist()
    assert labels == [int(digits.labels[row % len(digits.images)]) for row in range(rows)]
    assert said.count("shard done") == 3
