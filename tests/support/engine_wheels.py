"""Wheels of engines that no test but slow ones needs: large, and not ours to pass on.

They are fetched from the package index when the first test asks for them, into build/engine_wheels,
where the next run finds them.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_FETCHED = Path(__file__).parents[2] / "build" / "engine_wheels"


def engine_wheel(requirement: str, *more: str) -> Path:
    """A directory for PYTHONPATH that holds the package, and nothing of this environment's.

    Skips the test where it cannot be had: there is no index, or no wheel for this platform.

    Args:
        requirement: the package and its version, as `name==1.2.3`; the directory is named after it.
        more: packages that it is used with, in the same directory.
    """
    place = _FETCHED / requirement
    if place.is_dir():
        return place
    _FETCHED.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(dir=_FETCHED, prefix=".")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", scratch]
    command += [requirement, *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        shutil.rmtree(scratch)
        why = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        pytest.skip(f"{requirement} cannot be installed: {(why or ['pip does not say why'])[-1]}")
    try:
        Path(scratch).rename(place)
    except OSError:  # another process was quicker
        shutil.rmtree(scratch)
    return place
