"""The Metaflow flow of server/README.md, run on this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.labelled import Digits

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

README = Path(__file__).parents[2] / "server" / "README.md"
(FLOW,) = re.findall(
    r"^```python\n(import subprocess\n\nfrom metaflow.*?)^```$", README.read_text(), re.M | re.S
)


def test_flow_labels_every_row(tmp_path: Path) -> None:
    digits = Digits(tmp_path)
    (tmp_path / "flow.py").write_text(FLOW)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = {"HOME": str(tmp_path), "USERNAME": "test", "METAFLOW_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "flow.py", "run"],
        cwd=tmp_path,
        env={**os.environ, **home, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("shard done") == 3
    digits.check()
