"""`penstock demo` from training to a clean stop."""

import re
from pathlib import Path

from tests.support.cli import penstock


async def test_demo_is_right_about_every_image(tmp_path: Path) -> None:
    result = await penstock("demo", "--seconds=0.5", "--in-flight=16", f"--repository={tmp_path}")
    assert (result.code, result.err) == (0, "")
    accuracy = re.search(r"accuracy +(\S+) on 450 held-out images", result.out)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.96
    agreed = re.search(r"agreement +(\d+) of (\d+) answers", result.out)
    assert agreed is not None
    assert agreed[1] == agreed[2]
    assert "rows per batch" in result.out
    assert "why batches closed: " in result.out
    assert "the server stopped cleanly" in result.out
    checked = await penstock("check", str(tmp_path))
    assert checked.code == 0
    assert "digits" in checked.out
