"""The Slurm array of server/README.md, on a cluster of this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.labelled import Digits
from tests.support.slurm import lacks, slurm_cluster

pytestmark = [
    pytest.mark.any_transport,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacks()), reason=lacks() or "Slurm is here"),
]

README = Path(__file__).parents[2] / "server" / "README.md"
(SCRIPT,) = re.findall(r"^```sh\n(#!/bin/sh\n#SBATCH.*?)^```$", README.read_text(), re.M | re.S)


def test_array_of_shards_makes_one_output(tmp_path: Path) -> None:
    digits = Digits(tmp_path)
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
    assert said.count("shard done") == 3
    digits.check()
